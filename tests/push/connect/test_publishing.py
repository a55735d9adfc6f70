"""Op 32: who may publish to a room, what becomes of it, and the reply."""

import json
from typing import Any

import pytest
from prometheus_client import REGISTRY

from accounts.identity import Identity
from imgo_site.errors import Unavailable
from offline import streams
from offline.models import Message, Outbox
from push.connect import publishing
from push.connect.handlers import handle
from push.fanout import drain
from push.hooks import backend
from push.session.outgoing import Kind
from push.status import room_history
from push.wire import Frame, Op
from tests import eventually, in_thread
from tests.push.sessions import admit, frames

POLICIES = {
    "kept-*": {"history": 10, "client_publish": "members"},
    "chat-*": {"client_publish": "members"},
}


class Authorizer:
    """A `ROOM_AUTHORIZER` that knows who may publish."""

    async def __call__(self, identity: Identity, room: str) -> bool:
        return True

    async def may_publish(self, identity: Identity, room: str) -> bool:
        if identity.key == "broken":
            raise ValueError("a mistake in the authorizer")
        return identity.key == "writer"


authorizer = Authorizer()


@pytest.fixture(autouse=True)
def _policies(imgo):
    imgo(ROOMS=POLICIES)


async def publish(node, session, **members: Any) -> dict[str, Any]:
    """The body of the reply to a publish."""
    before = len(frames(session))
    body = json.dumps({"room": "chat-1", "body": "hi", **members}).encode()
    await handle(node, session, Frame(1, Op.PUBLISH, 9, body))
    (reply,) = [one for one in frames(session)[before:] if one.op == Op.PUBLISH_REPLY]
    assert reply.seq == 9
    found: dict[str, Any] = json.loads(reply.body)
    return found


def refused(code: str) -> float:
    return REGISTRY.get_sample_value("imgo_publishes_refused_total", {"code": code}) or 0.0


async def test_publish_of_a_member_is_stored_with_its_key(node):
    session = await admit(node, "u1", "chat-1")
    reply = await publish(node, session, op=1000, body={"text": "hé"})
    message = await in_thread(Message.objects.get)
    assert reply == {"room": "chat-1", "id": str(message.pk)}
    assert (message.room, message.sender, message.by) == ("chat-1", "u1", "client")
    assert (message.op, bytes(message.body)) == (1000, b'{"text":"h\xc3\xa9"}')


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"room": "chat-2"}, "room_forbidden"),
        ({"room": "quiet"}, "publish_forbidden"),
        ({"room": ""}, "bad_request"),
        ({"room": None}, "bad_request"),
        ({"op": 6}, "bad_request"),
        ({"op": "x"}, "bad_request"),
        ({"op": "5"}, "bad_request"),
        ({"op": 2**31}, "bad_request"),
        ({"store": "maybe"}, "bad_request"),
        ({"store": []}, "bad_request"),
        ({"echo": 1}, "bad_request"),
        ({"stroe": "never"}, "bad_request"),
        ({"id": 7}, "bad_request"),
        ({"id": ""}, "bad_request"),
        ({"id": "x" * 101}, "bad_request"),
        ({"body": "x" * 70_000}, "too_large"),
    ],
)
async def test_publish_that_is_refused_stores_nothing_and_is_counted(node, members, code):
    session = await admit(node, "u1", "chat-1", "quiet")
    before = refused(code)
    reply = await publish(node, session, **members)
    assert reply["error"]["code"] == code
    assert reply["error"]["message"]
    assert refused(code) == before + 1
    assert not session.is_closed
    assert not await in_thread(Message.objects.exists)


@pytest.mark.parametrize("body", [b"", b"hi", b"[1]", b'{"room":"chat-1"}', b"\xff", b"[" * 9_000])
async def test_publish_without_the_form_is_a_bad_request(node, body):
    session = await admit(node, "u1", "chat-1")
    await handle(node, session, Frame(1, Op.PUBLISH, 1, body))
    (reply,) = frames(session)
    assert json.loads(reply.body)["error"]["code"] == "bad_request"


async def test_publish_above_the_rate_of_the_key_is_refused_in_all_its_sessions(node, imgo):
    imgo(ROOMS=POLICIES, MAX_PUBLISHES_PER_SECOND=2)
    one, two = [await admit(node, "u1", "chat-1") for _ in range(2)]
    other = await admit(node, "u2", "chat-1")
    replies = [await publish(node, session) for session in (one, two, one, two, other)]
    codes = [reply.get("error", {}).get("code") for reply in replies]
    assert codes == [None, None, "too_many_publishes", "too_many_publishes", None]
    assert await in_thread(Message.objects.count) == 3


async def test_publish_with_the_id_of_another_is_stored_once_for_its_key_and_room(node):
    session = await admit(node, "u1", "chat-1", "chat-2")
    other = await admit(node, "u2", "chat-1")
    first = await publish(node, session, id="a")
    assert await publish(node, session, id="a") == first
    later = await admit(node, "u1", "chat-1")
    assert await publish(node, later, id="a") == first
    others = [
        await publish(node, session, id="b"),
        await publish(node, session, id="a", room="chat-2"),
        await publish(node, other, id="a"),
        await publish(node, session),
        await publish(node, session),
    ]
    assert len({first["id"], *(one["id"] for one in others)}) == 6


async def test_authorizer_with_may_publish_decides_on_each_message(node, imgo):
    imgo(ROOMS=POLICIES, ROOM_AUTHORIZER=f"{__name__}.authorizer")
    writer, reader = [await admit(node, key, "chat-1") for key in ("writer", "reader")]
    assert "id" in await publish(node, writer)
    assert (await publish(node, reader))["error"]["code"] == "publish_forbidden"
    assert (await publish(node, writer, room="quiet"))["error"]["code"] == "room_forbidden"


async def test_publish_is_refused_with_error_if_may_publish_raises(node, imgo, caplog):
    imgo(ROOMS=POLICIES, ROOM_AUTHORIZER=f"{__name__}.authorizer")
    session = await admit(node, "broken", "chat-1")
    assert (await publish(node, session))["error"]["code"] == "error"
    assert "a mistake in the authorizer" in caplog.text
    assert not session.is_closed
    assert not await in_thread(Message.objects.exists)


async def test_backend_is_asked_once_for_a_session_and_room(node, imgo, monkeypatch):
    imgo(ROOMS=POLICIES, AUTHORIZE_ROOM_URL="https://shop.example/authorize/")
    asked = []

    async def authorize(hooks, identity, room, is_gone, action):
        asked.append((identity.key, room, action))
        return room == "chat-1"

    monkeypatch.setattr(backend, "authorize_room", authorize)
    session = await admit(node, "u1", "chat-1", "chat-2")
    rooms = ["chat-1", "chat-2", "chat-1", "chat-2"]
    replies = [await publish(node, session, room=room) for room in rooms]
    assert ["id" in reply for reply in replies] == [True, False, True, False]
    assert asked == [("u1", "chat-1", "publish"), ("u1", "chat-2", "publish")]


async def test_publish_while_the_database_fails_is_unavailable(node, monkeypatch):
    session = await admit(node, "u1", "chat-1")

    def fail(*_: object) -> list[int]:
        raise Unavailable("It is away.")

    monkeypatch.setattr(publishing, "accept_pushes", fail)
    assert (await publish(node, session))["error"]["code"] == "unavailable"


async def test_publish_to_a_room_with_history_is_kept_with_its_sender(node):
    session = await admit(node, "u1", "kept-1")
    kept = await publish(node, session, room="kept-1", body=1)
    await publish(node, session, room="kept-1", body=2, store="never")
    for partition in {row.partition for row in await in_thread(lambda: list(Outbox.objects.all()))}:
        await in_thread(drain, partition)
    (found,) = await in_thread(lambda: streams.read_history("kept-1", limit=9, newest=False))
    assert (found.offset, str(found.id), found.sender) == (1, kept["id"], "u1")
    query = room_history.query_of({"room": "kept-1"})
    page = json.loads(await in_thread(room_history.page, query, 10_000))
    assert [(one["from"], one["body"]) for one in page["messages"]] == [("u1", 1)]


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.BINARY, Kind.TCP, Kind.EVENTS])
async def test_publish_without_echo_is_for_the_other_sessions(node, kind):
    own = await admit(node, "u1", "chat-1", kind=kind)
    same_key, other = [await admit(node, key, "chat-1", kind=kind) for key in ("u1", "u2")]
    first = await publish(node, own, echo=False, body="quiet")
    last = await publish(node, own, body="loud")
    for row in await in_thread(lambda: list(Outbox.objects.all())):
        await in_thread(drain, row.partition)
    both = [int(first["id"]), int(last["id"])]

    def messages() -> list[list[int]]:
        sessions = (own, same_key, other)
        return [[one.id for one in frames(session) if one.op == 5] for session in sessions]

    await eventually(lambda: all(both[1] in ids for ids in messages()))
    assert messages() == [both[1:], both, both]
