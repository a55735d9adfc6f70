"""establish: what a new session is sent, in which order, who is refused, what a failure leaves."""

import asyncio
import json
import time
from typing import Any

import jwt
import pytest
from django.db import OperationalError

from accounts.auth_body import parse_auth_body
from accounts.identity import Facts, Identity
from accounts.models import Token
from imgo_site.database_clock import Reading, boot_time
from imgo_site.errors import BadRequest, NotAuthenticated
from offline.models import RECEIVED, Pending
from offline.node_io import deliveries, pending_pages
from offline.settlement import record_receipts
from offline.values import Delivered, Receipt
from push.accept.accept import Push, accept_push
from push.bus.group_names import key_group
from push.connect.handshake import AuthRequest, Refusal, establish, ready_node
from push.connect.handshake_deadline import Expired, HandshakeDeadline
from push.node.missed_messages import recover
from push.node.node_instance import NodeInstance
from push.session.outgoing import Kind
from push.session.session import Link, Session
from push.wire import CloseCode, Frame, Op
from tests import PATIENCE, eventually, in_thread
from tests.push.conftest import push_now
from tests.push.sessions import KeptLink, frames, message


async def trust(body, facts) -> Identity:
    """An AUTHENTICATOR: the token is the key; "key*" names the rooms it may join."""
    if body.mistake:
        raise BadRequest(body.mistake)
    key, *rooms = body.token.split("|")
    if key == "nobody":
        raise NotAuthenticated("who?")
    if key == "bug":
        raise LookupError("a bug")
    if key == "expired":
        return Identity("u1", expires_at=1.0)
    join = json.loads(body.raw).get("join", ()) if body.raw[:1] == b"{" else ()
    return Identity(key, tuple(rooms) or None, join=tuple(join))


async def never(identity, room) -> bool:
    """Let nobody into a room but `open`; for ROOM_AUTHORIZER."""
    return room == "open"


@pytest.fixture(autouse=True)
def _trusting(imgo):
    imgo(AUTHENTICATOR="tests.push.connect.test_handshake.trust")


def request(node, frame: Frame, link: Link, kind: Kind = Kind.TCP) -> AuthRequest:
    facts = Facts("tcp", "192.0.2.1", clock=node.clock)
    return AuthRequest(frame, parse_auth_body(frame.body), kind, link, facts)


async def open_with(node, frame: Frame, kind: Kind = Kind.TCP, link: Any = None) -> Session:
    with HandshakeDeadline(PATIENCE, lambda: None) as deadline:
        return await establish(node, request(node, frame, link or KeptLink(), kind), deadline)


async def open_session(
    node, token: str = "u1", *, kind: Kind = Kind.TCP, link: Any = None, **body: Any
) -> Session:
    data = json.dumps({"token": token, "ack": True, **body}).encode()
    frame = Frame(1, Op.AUTH, 77, data)
    return await open_with(node, frame, kind, link or KeptLink())


def sent(session: Session) -> list[int]:
    """The ids of messages in the order in which they were sent; 0 stands for the auth reply."""
    return [frame.id for frame in frames(session)]


async def store(*bodies: bytes, key: str = "u1") -> list[int]:
    return [await in_thread(accept_push, Push(body, keys=(key,))) for body in bodies]


async def refusal(node, *args: Any, **body: Any) -> Refusal:
    """How the session is refused, after which nothing of it is left."""
    with pytest.raises(Refusal) as found:
        await open_session(node, *args, **body)
    assert (node.hub.sessions, node.entries) == ({}, {})
    assert not any(node.hub.groups.values())
    assert await in_thread(node.registry.sessions, "u1") == []
    assert await in_thread(node.registry.rooms) == {}
    return found.value


# Opening


@pytest.mark.parametrize("kind", [Kind.TCP, Kind.BINARY, Kind.TEXT])
async def test_a_new_session_is_told_so_with_its_seq(node, kind):
    session = await open_session(node, kind=kind)
    (frame,) = frames(session)
    assert (frame.ver, frame.op, frame.seq) == (1, Op.AUTH_REPLY, 77)
    assert node.hub.sessions == {session.id: session}
    assert not session.is_closed


async def test_what_is_known_of_the_session(node):
    session = await open_session(node, rooms=["a", "b"], platform="web")
    assert (session.key, session.rooms, session.acks) == ("u1", {"a", "b"}, True)
    (entry,) = await in_thread(node.registry.sessions, "u1")
    assert (entry.id, entry.node, entry.transport) == (session.id, node.id, "tcp")
    assert (entry.address, entry.platform, entry.since) == ("192.0.2.1", "web", session.opened)
    assert await in_thread(node.registry.rooms) == {"a": 1, "b": 1}


async def test_a_bare_token_asks_for_no_ids(node):
    frame = Frame(1, Op.AUTH, 1, b"u1")
    session = await open_with(node, frame)
    assert not session.acks


async def test_bare_token_session_is_in_the_rooms_of_its_identity(node, imgo):
    """What a client of imgo or goim v1 sends: nothing but a token."""
    imgo(AUTHENTICATOR="accounts.identity.authenticate", ROOMS_OPEN=False)
    await in_thread(Token.objects.issue, "1", token="t", join=["7"])
    session = await open_with(node, Frame(1, Op.AUTH, 1, b"t"))
    assert (session.rooms, session.change_room) == ({"7"}, "7")
    assert await in_thread(node.registry.rooms) == {"7": 1}


async def test_joined_rooms_of_an_identity_need_no_authorizer(node, imgo):
    imgo(ROOM_AUTHORIZER="tests.push.connect.test_handshake.never")
    assert (await refusal(node, "u1", rooms=["c"], join=["a"])).code == CloseCode.ROOM_FORBIDDEN
    session = await open_session(node, "u1", rooms=["a"], join=["a", "b"])
    assert (session.rooms, session.change_room) == ({"a", "b"}, "a")
    session = await open_session(node, "u1", join=["a", "b"])
    assert session.change_room == ""  # goim has one room, and it is not known which this is


async def test_joined_rooms_count_against_the_rooms_of_a_session(node, imgo):
    imgo(MAX_ROOMS_PER_SESSION=2)
    found = await refusal(node, rooms=["a", "c"], join=["b"])
    assert (found.code, found.reason) == (4500, "A session may be in 2 rooms at most.")
    assert len((await open_session(node, rooms=["a"], join=["b"])).rooms) == 2


async def test_authenticator_that_joins_a_pattern_is_reported_as_a_bug(node, caplog):
    assert (await refusal(node, join=["a*"])).code == CloseCode.INTERNAL_ERROR
    assert "a pattern cannot be joined" in caplog.text


async def test_the_room_that_op_12_leaves(node):
    assert (await open_session(node, room_id="a")).change_room == "a"


# The database's time


@pytest.mark.parametrize(("hours", "is_admitted"), [(-2, True), (2, False)])
async def test_jwt_is_judged_by_the_nodes_clock_of_the_database(node, imgo, hours, is_admitted):
    """The host's clock is `hours` ahead of the database's, and the token expires by the latter."""
    secret = "a secret of at least thirty-two bytes"
    imgo(AUTHENTICATOR="accounts.identity.authenticate", JWT_SECRET=secret)
    unix, now = time.time() + hours * 3600, boot_time()
    node.clock.take(Reading(unix, now, now))
    expires = time.time() + hours * 1800  # between the two clocks
    token = jwt.encode({"sub": "u1", "exp": expires}, secret, "HS256").encode()
    opening = open_with(node, Frame(1, Op.AUTH, 1, token), Kind.TCP, KeptLink())
    if is_admitted:
        session = await opening
        assert session.expires_at == expires + 5
        assert session.opened == pytest.approx(unix, abs=20)
    else:
        with pytest.raises(Refusal) as found:
            await opening
        assert found.value.code == CloseCode.UNAUTHORIZED


# Bodies of others


async def by_ticket(body, facts) -> Identity:
    """An AUTHENTICATOR for clients whose auth frame holds something of their own."""
    seen.append(body.raw)
    return Identity("u1", join=("7",))


seen: list[bytes] = []
OTHER_BODIES = [
    b'{"TypeID":10,"AuthMsg":{"ticket":"x"}}',
    b'{"data":{}}',
    b'{"uid":1,"roomid":2}',
    b'{"token":5,"rooms":{},"since":"x","accepts":7,"mid":[],"key":1,"ack":2}',
    b"[1,2]",
    b"17",
    b"null",
    b"\x00\xff\xfe",
    b"",
]


@pytest.mark.parametrize("raw", OTHER_BODIES)
async def test_auth_body_of_any_form_reaches_the_authenticator(node, imgo, raw):
    imgo(AUTHENTICATOR="tests.push.connect.test_handshake.by_ticket")
    seen.clear()
    session = await open_with(node, Frame(1, Op.AUTH, 1, raw))
    assert seen == [raw]
    assert (session.key, session.rooms, session.acks) == ("u1", {"7"}, False)


@pytest.mark.parametrize("raw", OTHER_BODIES)
async def test_default_authenticator_refuses_bodies_of_other_forms(node, imgo, raw):
    imgo(AUTHENTICATOR="accounts.identity.authenticate")
    with pytest.raises(Refusal) as found:
        await open_with(node, Frame(1, Op.AUTH, 1, raw))
    has_mistake = b'"token":5' in raw
    assert found.value.code == (CloseCode.BAD_FRAME if has_mistake else CloseCode.UNAUTHORIZED)


# Replaying


async def test_what_was_pending_comes_after_the_reply_in_order(node):
    ids = await store(b"1", b"2", b"3")
    await store(b"4", key="u2")
    session = await open_session(node)
    assert sent(session) == [0, *ids]
    live = await in_thread(push_now, Push(b"5", keys=("u1",)))
    await eventually(lambda: live in sent(session))
    assert sent(session) == [0, *ids, live]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
async def test_any_number_of_pages_is_replayed(node, imgo, count):
    imgo(REPLAY_PAGE=2)
    ids = await store(*[b"1"] * count)
    assert sent(await open_session(node)) == [0, *ids]


async def test_a_session_may_say_what_it_has_seen(node):
    ids = await store(b"1", b"2", b"3")
    assert sent(await open_session(node, since=str(ids[1]))) == [0, ids[2]]
    assert sent(await open_session(node, since=ids[0])) == [0, *ids[1:]]


async def test_what_was_acknowledged_a_moment_ago_is_not_replayed(node):
    ids = await store(b"1", b"2")
    await node.runtime.stop(float("inf"))  # as when the database is slow
    node.acknowledger.received(ids[0], "u1", "s1")
    assert sent(await open_session(node)) == [0, ids[1]]


# While the database is silent


@pytest.fixture
def first_page(monkeypatch) -> asyncio.Event:
    """Set it to have the first page of what is pending read; until then the database is silent."""
    is_there, get = asyncio.Event(), pending_pages.get

    async def slow(wanted: Any) -> Any:
        await is_there.wait()
        return await get(wanted)

    monkeypatch.setattr(pending_pages, "get", slow)
    return is_there


async def test_reply_waits_for_the_first_page_of_what_is_pending(node, first_page):
    ids, link = await store(b"1"), KeptLink()
    opening = asyncio.create_task(open_session(node, link=link))
    await eventually(lambda: node.hub.sessions)
    await asyncio.sleep(0.05)
    assert link.written == []
    first_page.set()
    assert sent(await opening) == [0, *ids]


async def test_held_message_is_written_though_another_device_has_it(node, first_page):
    """It was pushed while the session was being opened; the other device was quicker."""
    (old,) = await store(b"0")
    link = KeptLink()
    opening = asyncio.create_task(open_session(node, link=link))
    await eventually(lambda: node.hub.sessions)
    early = await in_thread(push_now, Push(b"1", keys=("u1",)))
    (session,) = node.hub.sessions.values()
    await eventually(lambda: session._held)
    await in_thread(record_receipts, [Receipt(early, "u1", RECEIVED, "s1")])
    later = await in_thread(accept_push, Push(b"2", keys=("u1",)))
    first_page.set()
    assert sent(await opening) == [0, old, early, later]


async def test_session_that_expires_leaves_nothing_behind(node, first_page):
    expired: list[bool] = []
    frame = Frame(1, Op.AUTH, 1, b"u1")
    deadline = HandshakeDeadline(0.05, lambda: expired.append(True))
    with pytest.raises(Expired), deadline:
        await establish(node, request(node, frame, KeptLink()), deadline)
    assert expired == [True]
    assert (node.hub.sessions, node.entries) == ({}, {})
    assert await in_thread(node.registry.sessions, "u1") == []


async def test_time_that_the_client_takes_to_read_does_not_count(node, imgo):
    imgo(REPLAY_PAGE=1)
    ids = await store(*[b"1"] * 3)

    class SlowLink(KeptLink):
        async def drained(self) -> None:
            await asyncio.sleep(0.3)

    with HandshakeDeadline(0.6, lambda: None) as deadline:
        frame = Frame(1, Op.AUTH, 1, b'{"token":"u1","ack":true}')
        session = await establish(node, request(node, frame, SlowLink()), deadline)
    assert sent(session) == [0, *ids]


# What the replay has overtaken


async def overtaken(node) -> tuple[Session, list[int]]:
    """A session that was replayed the second of two messages; the first was not to be seen."""
    ids = await store(b"1", b"2")
    session = await open_session(node, since=str(ids[0]))
    assert sent(session) == [0, ids[1]]
    return session, ids


async def test_what_was_stored_behind_the_replays_back_is_sent(node):
    session, ids = await overtaken(node)
    session.deliver(message(ids[0]))
    await eventually(lambda: sent(session) == [0, ids[1], ids[0]])


async def test_what_another_session_had_before_this_one_opened_is_not_sent(node):
    session, ids = await overtaken(node)
    await in_thread(record_receipts, [Receipt(ids[0], "u1", RECEIVED, "s1", 60.0)])
    session.deliver(message(ids[0]))
    session.deliver(message(ids[1] + 1))
    await eventually(lambda: sent(session) == [0, ids[1], ids[1] + 1])


async def test_what_another_session_has_had_since_it_opened_is_sent(node):
    session, ids = await overtaken(node)
    await in_thread(record_receipts, [Receipt(ids[0], "u1", RECEIVED, "s1")])
    session.deliver(message(ids[0]))
    await eventually(lambda: sent(session) == [0, ids[1], ids[0]])


async def test_what_the_reading_found_settled_is_not_sent_whatever_its_time(node):
    """The time of an event is that of its storing, less an age: on a busy machine it is late."""
    ids = await store(b"1", b"2")
    await in_thread(record_receipts, [Receipt(ids[0], "u1", RECEIVED, "s1", -60.0)])
    session = await open_session(node)
    assert sent(session) == [0, ids[1]]
    session.deliver(message(ids[0]))
    session.deliver(message(ids[1] + 1))
    await eventually(lambda: sent(session) == [0, ids[1], ids[1] + 1])


async def test_what_was_settled_here_before_it_opened_is_not_sent(node):
    ids = await store(b"1", b"2")
    await node.runtime.stop(float("inf"))  # as when the database is slow
    node.acknowledger.received(ids[0], "u1", "s1")
    session = await open_session(node, since=str(ids[0]))
    session.deliver(message(ids[0]))
    session.deliver(message(ids[1] + 1))
    await eventually(lambda: sent(session) == [0, ids[1], ids[1] + 1])


async def test_what_another_node_settled_before_it_opened_is_not_sent_for_a_later_receipt(node):
    """A slow session here received the message later than the one whose receipt settled it."""
    ids = await store(b"1", b"2")
    await node.runtime.stop(float("inf"))  # as when the database is slow
    await in_thread(record_receipts, [Receipt(ids[0], "u1", RECEIVED, "other-1")])
    session = await open_session(node)
    assert sent(session) == [0, ids[1]]
    node.acknowledger.received(ids[0], "u1", "slow")
    session.deliver(message(ids[0]))
    session.deliver(message(ids[1] + 1))
    await eventually(lambda: sent(session) == [0, ids[1], ids[1] + 1])


async def test_what_was_settled_here_after_it_joined_is_replayed(node):
    """That another session of its key was quicker is no reason to miss a message."""
    ids = await store(b"1", b"2")
    await node.runtime.stop(float("inf"))  # as when the database is slow

    class SlowLink(KeptLink):
        async def drained(self) -> None:
            node.acknowledger.received(ids[1], "u1", "s1")

    link = SlowLink()
    link.waiting = 1
    assert sent(await open_session(node, link=link)) == [0, *ids]


async def test_what_comes_while_a_late_message_is_asked_for_follows_it(node, monkeypatch):
    session, ids = await overtaken(node)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(pair) -> Delivered:
        asked.set()
        await answer.wait()
        return Delivered(0.0, None)

    monkeypatch.setattr(deliveries, "get", slow)
    session.deliver(message(ids[0]))
    session.deliver(message(ids[1] + 1))
    await asked.wait()
    assert sent(session) == [0, ids[1]]
    answer.set()
    await eventually(lambda: sent(session) == [0, ids[1], ids[0], ids[1] + 1])


async def test_what_is_kept_back_goes_out_in_the_order_of_the_replay(node, monkeypatch):
    """A live message that others have had already precedes what is pending still."""
    ids = await store(b"1", b"2", b"3")
    await in_thread(record_receipts, [Receipt(ids[1], "u1", RECEIVED, "s1")])
    read = pending_pages.get

    async def after_a_live_one(ask):
        (session,) = node.hub.groups[key_group("u1")]
        session.deliver(message(ids[1]))
        return await read(ask)

    monkeypatch.setattr(pending_pages, "get", after_a_live_one)
    assert sent(await open_session(node)) == [0, *ids]


async def test_what_came_in_a_gap_behind_the_replays_back_is_read_again(node, monkeypatch):
    ids = await store(b"1", b"2", b"3")
    await in_thread(Pending.objects.filter(message__in=ids[1:]).update, key="not yet")
    read = pending_pages.get

    async def before_a_gap(ask):
        page = await read(ask)
        await in_thread(Pending.objects.filter(key="not yet").update, key="u1")
        await in_thread(record_receipts, [Receipt(ids[1], "u1", RECEIVED, "s1")])
        (session,) = node.hub.groups[key_group("u1")]
        loop = asyncio.get_running_loop()
        await recover(node.hub, node.acknowledger, ["u1"], loop.time() - 1.0)
        assert session.is_behind
        return page

    monkeypatch.setattr(pending_pages, "get", before_a_gap)
    session = await open_session(node)
    assert sent(session) == [0, ids[0], ids[2]]  # the second was had before this one was open
    assert not session.is_connecting


async def test_what_is_overtaken_while_the_database_is_away_stays_pending(
    node, monkeypatch, caplog
):
    async def away(pair):
        raise OperationalError("away")

    session, ids = await overtaken(node)
    monkeypatch.setattr(deliveries, "get", away)
    session.deliver(message(ids[0]))
    await eventually(lambda: "retrying at the next audit" in caplog.text)
    assert sent(session) == [0, ids[1]]


async def test_who_cannot_acknowledge_has_what_it_was_sent(node, imgo):
    imgo(REPLAY_PAGE=2)
    await store(*[b"1"] * 5)
    await open_session(node, ack=False)

    async def nothing_is_pending() -> bool:
        return not await in_thread(Pending.objects.exists)

    await eventually(nothing_is_pending)


async def test_who_acknowledges_is_sent_it_again_until_then(node):
    ids = await store(b"1", b"2")
    for _ in range(2):
        assert sent(await open_session(node)) == [0, *ids]


async def test_the_next_page_waits_for_the_client(node, imgo):
    imgo(REPLAY_PAGE=2)
    ids = await store(*[b"1"] * 3)

    class SlowLink(KeptLink):
        async def drained(self) -> None:
            await has_read.wait()

    has_read, link = asyncio.Event(), SlowLink()
    opening = asyncio.create_task(open_session(node, link=link))
    await eventually(lambda: len(link.written) == 3)
    assert not opening.done()
    has_read.set()
    assert sent(await opening) == [0, *ids]


async def test_what_is_live_during_the_replay_comes_after_it(node, imgo):
    imgo(REPLAY_PAGE=2)
    ids = await store(*[b"1"] * 3)

    class SlowLink(KeptLink):
        async def drained(self) -> None:
            if live:  # the second page is full too
                return
            live.append(await in_thread(push_now, Push(b"2", keys=("u1",))))
            live.append(await in_thread(push_now, Push(b"3", room="a")))
            # It has come through the layer when this has.
            other = await open_session(node, "u2", rooms=["a"])
            last = await in_thread(push_now, Push(b"4", room="a"))
            await eventually(lambda: last in sent(other))
            live.append(last)

    live: list[int] = []
    session = await open_session(node, link=SlowLink(), rooms=["a"])
    stored, *rooms = live
    assert sent(session) == [0, *ids, stored, *rooms]


async def test_a_push_that_races_the_connect_is_received_once_and_in_order(node):
    for n in range(25):
        key = f"racer{n}"
        first = await store(b"0", key=key)

        async def push_three(key: str = key) -> list[int]:
            return [await in_thread(push_now, Push(b"1", keys=(key,))) for _ in range(3)]

        ids, session = await asyncio.gather(push_three(), open_session(node, key))
        expected = [*first, *ids]
        await eventually(lambda s=session, last=ids[-1]: last in sent(s))
        assert sent(session) == [0, *expected]


# Refusing


@pytest.mark.parametrize(
    ("token", "body", "code"),
    [
        ("nobody", {}, CloseCode.UNAUTHORIZED),
        ("expired", {}, CloseCode.UNAUTHORIZED),
        ("a\0", {}, CloseCode.UNAUTHORIZED),
        ("", {}, CloseCode.UNAUTHORIZED),
        ("u1", {"since": "x"}, CloseCode.BAD_FRAME),
        ("u1", {"rooms": [1]}, CloseCode.BAD_FRAME),
        ("u1|a", {"rooms": ["a", "b"]}, CloseCode.ROOM_FORBIDDEN),
        ("u1|a", {"room_id": "b"}, CloseCode.ROOM_FORBIDDEN),
    ],
)
async def test_a_refusal_has_its_code(node, token, body, code, caplog):
    found = await refusal(node, token, **body)
    assert found.code == code
    assert found.reason
    assert not any(record.exc_info for record in caplog.records)


async def test_a_body_that_is_not_text_is_refused(node):
    with pytest.raises(Refusal) as found:
        await open_with(node, Frame(1, Op.AUTH, 1, b"\xff"))
    assert found.value.code == CloseCode.UNAUTHORIZED


async def test_a_room_is_up_to_the_authorizer(node, imgo):
    imgo(
        AUTHENTICATOR="tests.push.connect.test_handshake.trust",
        ROOM_AUTHORIZER="tests.push.connect.test_handshake.never",
    )
    assert (await refusal(node, rooms=["closed"])).code == CloseCode.ROOM_FORBIDDEN
    assert (await open_session(node, rooms=["open"])).rooms == {"open"}


async def test_too_many_sessions_are_refused(node, imgo):
    imgo(MAX_SESSIONS_PER_KEY=1)
    first = await open_session(node)
    with pytest.raises(Refusal) as found:
        await open_session(node)
    assert found.value.code == CloseCode.TOO_MANY_SESSIONS
    assert list(node.hub.sessions.values()) == [first]


async def test_a_bug_is_logged_and_not_told(node, caplog):
    found = await refusal(node, "bug")
    assert (found.code, found.reason) == (CloseCode.INTERNAL_ERROR, "internal error")
    assert "LookupError" in caplog.text


async def test_the_default_authenticator_knows_stored_tokens(node, imgo):
    imgo(AUTHENTICATOR="accounts.identity.authenticate")
    await in_thread(Token.objects.issue, "u1", token="t", rooms=["a"])
    assert (await open_session(node, "t", rooms=["a"])).key == "u1"
    with pytest.raises(Refusal) as found:
        await open_session(node, "t", rooms=["b"])
    assert found.value.code == CloseCode.ROOM_FORBIDDEN


async def test_without_the_database_the_client_may_come_back(node):
    """Its tables are away; that is the same to a session."""
    await in_thread(_rename, "offline_pending", "elsewhere")
    try:
        found = await refusal(node)
    finally:
        await in_thread(_rename, "elsewhere", "offline_pending")
    assert found.code == CloseCode.UNAVAILABLE
    assert found.code.reconnect
    await open_session(node)


def _rename(old: str, new: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


async def test_a_layer_that_is_away_is_unavailable(node, monkeypatch):
    async def fail(*_: Any) -> None:
        raise OSError("away")

    with monkeypatch.context() as patch:
        patch.setattr("push.node.layer_groups.groups_add", fail)
        assert (await refusal(node)).code == CloseCode.UNAVAILABLE
    await open_session(node)


async def test_a_client_that_goes_during_its_opening_leaves_nothing(node, imgo):
    imgo(REPLAY_PAGE=1)
    await store(b"1", b"2")

    class StuckLink(KeptLink):
        async def drained(self) -> None:
            await asyncio.Event().wait()

    link = StuckLink()
    opening = asyncio.create_task(open_session(node, link=link, rooms=["a"]))
    await eventually(lambda: len(link.written) == 2)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (node.hub.sessions, node.entries) == ({}, {})
    assert await in_thread(node.registry.sessions, "u1") == []
    assert await in_thread(node.registry.rooms) == {}
    assert await in_thread(Pending.objects.count) == 2


async def test_a_node_that_cannot_start_refuses(database_down, mode):
    with pytest.raises(Refusal) as found:
        await ready_node(NodeInstance())
    assert found.value.code == CloseCode.UNAVAILABLE
