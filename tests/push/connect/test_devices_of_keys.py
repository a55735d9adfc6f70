"""Sessions of a key with the scope `each`: what each device is sent, and what others read."""

import asyncio
import json

import pytest

from offline import conservation, key_devices
from offline.models import ACKNOWLEDGED, KeyDevice, Outbox, Pending
from offline.settlement import record_device_receipts
from offline.values import DeviceReceipt
from push.accept.accept import Push, accept_push
from push.connect import handlers
from push.node.missed_messages import recover
from push.session.outgoing import Kind
from push.session.session import Session
from push.wire import CloseCode, Frame, Op
from tests import eventually, in_thread
from tests.push.conftest import push_now
from tests.push.connect.test_handshake import open_session, refusal
from tests.push.sessions import frames


@pytest.fixture(autouse=True)
def _scopes(imgo):
    trust = "tests.push.connect.test_handshake.trust"
    imgo(AUTHENTICATOR=trust, ACK_SCOPE={"any-*": "any", "*": "each"}, PARTITIONS=1)


async def push(key: str = "u1", body: bytes = b"{}") -> int:
    return await in_thread(push_now, Push(body, keys=(key,)))


async def acknowledge(node, session: Session, *ids: int) -> None:
    """Acknowledge, and wait until it is recorded."""
    await handlers.handle(node, session, Frame(1, Op.ACK, 0, json.dumps(ids).encode()))
    await eventually(lambda: not node.acknowledger.waiting)


def messages(session: Session) -> list[int]:
    return [frame.id for frame in frames(session) if frame.op == Op.MESSAGE]


def reports(session: Session) -> list[dict]:
    return [json.loads(frame.body) for frame in frames(session) if frame.op == Op.READ]


async def pending(device: str) -> list[int]:
    rows = Pending.objects.filter(device=device).order_by("message")
    return await in_thread(lambda: list(rows.values_list("message", flat=True)))


async def test_each_device_gets_what_it_has_not_acknowledged(node):
    phone = await open_session(node, device="phone")
    laptop = await open_session(node, device="laptop")
    one = await push()
    await eventually(lambda: messages(phone) == messages(laptop) == [one])
    await acknowledge(node, phone, one)
    await node.dismiss(phone)
    await node.dismiss(laptop)
    two = await push()
    assert messages(await open_session(node, device="phone")) == [two]
    assert messages(await open_session(node, device="laptop")) == [one, two]
    # A new device has no old messages.
    assert messages(await open_session(node, device="tablet")) == []
    assert await in_thread(conservation.unbalanced, 0, 10**12) == []


async def test_known_device_connects_without_a_transaction_of_its_own(node, monkeypatch):
    await open_session(node, device="phone")
    monkeypatch.setattr(key_devices, "register", None)  # adds a device, in its own transaction
    before = await in_thread(KeyDevice.objects.get)
    assert (await open_session(node, device="phone")).device == "phone"
    assert (await in_thread(KeyDevice.objects.get)).seen_at > before.seen_at


async def test_new_devices_connect_at_once_in_a_few_transactions(node, monkeypatch):
    monkeypatch.setattr(key_devices, "register", None)  # adds a device, in its own transaction
    pairs = [(f"u{number}", name) for number in range(20) for name in ("phone", "laptop")]
    sessions = await asyncio.gather(*(open_session(node, key, device=name) for key, name in pairs))
    assert [(one.key, one.device) for one in sessions] == pairs
    assert await in_thread(KeyDevice.objects.count) == len(pairs)


async def test_since_is_of_the_device(node):
    phone = await open_session(node, device="phone")
    await open_session(node, device="laptop")
    one, two = await push(), await push()
    await eventually(lambda: messages(phone) == [one, two])
    await acknowledge(node, phone, one, two)
    assert messages(await open_session(node, device="phone", since=one)) == [two]


async def test_session_that_cannot_acknowledge_settles_for_its_device(node):
    await open_session(node, device="phone", ack=False)
    await open_session(node, device="laptop")
    one = await push()
    await eventually(lambda: _is_only_pending_for(one, "laptop"))


async def _is_only_pending_for(message_id: int, device: str) -> bool:
    return await in_thread(
        lambda: list(Pending.objects.values_list("message", "device")) == [(message_id, device)]
    )


async def test_other_named_devices_are_told_what_one_has_read(node):
    phone = await open_session(node, device="phone")
    again = await open_session(node, device="phone")
    laptop = await open_session(node, device="laptop", kind=Kind.BINARY)
    unnamed = await open_session(node)
    stranger = await open_session(node, "u2", device="laptop")
    ids = [await push() for _ in range(2)]
    await eventually(lambda: messages(phone) == ids)
    await acknowledge(node, phone, *ids)
    await eventually(lambda: reports(laptop))
    assert reports(laptop) == [{"ids": [str(one) for one in ids]}]
    await acknowledge(node, phone, *ids)  # has settled nothing
    await acknowledge(node, laptop, ids[0])
    await eventually(lambda: reports(phone) and reports(again))
    assert reports(phone) == reports(again) == [{"ids": [str(ids[0])]}]
    assert len(reports(laptop)) == 1
    assert reports(unnamed) == reports(stranger) == []


@pytest.mark.parametrize("kind", list(Kind))
async def test_report_has_the_form_of_a_retraction(node, kind):
    phone = await open_session(node, device="phone")
    laptop = await open_session(node, device="laptop", kind=kind)
    one = await push()
    await eventually(lambda: messages(phone) == [one])
    await acknowledge(node, phone, one)
    body = b'{"ids":["%d"]}' % one
    text = b'{"ver":1,"op":31,"seq":0,"body":%b}' % body
    binary = (16 + len(body)).to_bytes(4) + bytes.fromhex("0010 0001 0000001f 00000000") + body
    form = {Kind.TEXT: b"[%b]" % text, Kind.EVENTS: b"event: imgo\ndata: %b\n\n" % text}
    await eventually(lambda: laptop.link.written[-1] == form.get(kind, binary))


async def test_clients_without_a_name_are_one_device(node):
    unnamed = await open_session(node)
    phone = await open_session(node, device="phone")
    one = await push()
    await eventually(lambda: messages(unnamed) == messages(phone) == [one])
    await acknowledge(node, unnamed, one)
    await node.dismiss(unnamed)
    await node.dismiss(phone)
    assert messages(await open_session(node)) == []
    assert messages(await open_session(node, device="phone")) == [one]


async def test_audit_delivers_only_what_is_pending_for_the_device(node, imgo):
    trust = "tests.push.connect.test_handshake.trust"
    imgo(AUTHENTICATOR=trust, ACK_SCOPE={"*": "each"}, SWEEP_AFTER=0.001, REPLAY_PAGE=1)
    names = ("laptop", "phone", "tablet")
    sessions = [await open_session(node, device=name) for name in names]
    ids = [await in_thread(accept_push, Push(b"{}", keys=("u1",))) for _ in range(3)]
    await in_thread(Outbox.objects.all().delete)  # no message of the fan-out arrives
    done = DeviceReceipt(ids[1], "u1", ACKNOWLEDGED, "at another node", 0.0, "phone")
    await in_thread(record_device_receipts, [done])
    assert await recover(node.hub, node.acknowledger, ["u1"]) == 3
    assert [messages(one) for one in sessions] == [ids, [ids[0], ids[2]], ids]
    assert await recover(node.hub, node.acknowledger, ["u1"]) == 0


async def test_key_with_the_scope_any_has_no_devices(node):
    phone = await open_session(node, "any-1", device="Ann's phone")
    one = await push("any-1")
    await eventually(lambda: messages(phone) == [one])
    await acknowledge(node, phone, one)
    assert messages(await open_session(node, "any-1", device="laptop")) == []
    assert await in_thread(KeyDevice.objects.count) == 0


@pytest.mark.parametrize("name", ["Ann's phone", "a" * 65, "é", " ", "a\n", 7])
async def test_wrong_name_of_a_device_is_refused(node, name):
    found = await refusal(node, device=name)
    assert (found.code, "'device'" in found.reason) == (CloseCode.BAD_FRAME, True)
    assert await in_thread(KeyDevice.objects.count) == 0


async def test_one_device_too_many_forgets_one(node, imgo):
    trust = "tests.push.connect.test_handshake.trust"
    imgo(AUTHENTICATOR=trust, ACK_SCOPE={"*": "each"}, DEVICES_MAX=2, PARTITIONS=1)
    for name in ("phone", "laptop", "tablet"):
        await open_session(node, device=name)
    await push()
    assert await pending("phone") == []
    assert await pending("laptop") == await pending("tablet") != []


async def test_read_report_from_a_client_closes_its_session(node):
    session = await open_session(node, device="phone")
    await handlers.handle(node, session, Frame(1, Op.READ, 0, b'{"ids":["1"]}'))
    assert session.close_code == CloseCode.UNKNOWN_OP


async def test_rounds_record_that_devices_are_connected(node):
    await open_session(node, device="phone")
    first = (await in_thread(key_devices.devices_of, "u1"))[0].seen_at
    await node.rounds.refresh_devices()
    assert (await in_thread(key_devices.devices_of, "u1"))[0].seen_at > first
