"""Rooms that a session joins and leaves, and its messages to the receiver, by each transport."""

import asyncio
import json

import pytest

from accounts.models import Token
from imgo_site.errors import BadRequest
from push.accept.accept import Push
from push.registry.redis_registry import RedisRegistry
from push.session.outgoing import Kind
from push.wire import CloseCode, Op
from tests import in_thread
from tests.push.conftest import get_node, push_now
from tests.push.connect.clients import (
    PATIENCE,
    error_of,
    rooms,
)


async def test_op_12_changes_the_room(client):
    for body, there in ((b"a", {"a": 1}), (b"b", {"b": 1}), (b"b", {"b": 1}), (b"", {})):
        await client.send(Op.CHANGE_ROOM, body, 9)
        reply = await client.answer()
        assert (reply.op, reply.seq, error_of(reply)) == (Op.CHANGE_ROOM_REPLY, 9, None)
        assert await rooms() == there


async def test_a_session_may_be_in_many_rooms(client):
    for op, body, there in (
        (Op.JOIN, b"a", {"a": 1}),
        (Op.JOIN, b"b", {"a": 1, "b": 1}),
        (Op.JOIN, b"a", {"a": 1, "b": 1}),
        (Op.LEAVE, b"a", {"b": 1}),
        (Op.LEAVE, b"never", {"b": 1}),
    ):
        await client.send(op, body, 9)
        reply = await client.answer()
        assert (reply.op, reply.seq, error_of(reply)) == (op + 1, 9, None)
        assert await rooms() == there
    await in_thread(push_now, Push(b"1", room="a"))
    one = await in_thread(push_now, Push(b"2", room="b"))
    assert (await client.answer()).id == one


@pytest.mark.parametrize("op", [Op.JOIN, Op.LEAVE])
async def test_a_bad_room_is_an_error_and_no_end(client, op):
    for body in (b"", b"[1]", b'"a\\u0000"', b"1.5", b"x" * 300):
        is_json = client.kind is Kind.TEXT and body not in {b"", b"x" * 300}
        await client.send(op, json.loads(body) if is_json else body)
        assert error_of(await client.answer()) == "bad_request", body
        assert await rooms() == {}


async def test_a_room_that_is_not_allowed(connect, name):
    await in_thread(Token.objects.issue, "u1", token="t", rooms=["mine.*"])
    client = await connect(name)
    await client.auth(rooms=["mine.1"])
    for op, body, code in (
        (Op.JOIN, b"yours", "room_forbidden"),
        (Op.CHANGE_ROOM, b"yours", "room_forbidden"),
        (Op.JOIN, b"mine.2", None),
    ):
        await client.send(op, body)
        assert error_of(await client.answer()) == code
    assert await rooms() == {"mine.1": 1, "mine.2": 1}


async def test_too_many_rooms(client, imgo):
    imgo(MAX_ROOMS_PER_SESSION=1)
    for body, code in ((b"a", None), (b"b", "bad_request"), (b"a", None)):
        await client.send(Op.JOIN, body)
        assert error_of(await client.answer()) == code


# A session that leaves is out of the room at once; an error would say that it is still in.
@pytest.mark.parametrize(
    ("op", "code"),
    [(Op.JOIN, "unavailable"), (Op.LEAVE, None), (Op.CHANGE_ROOM, "unavailable")],
)
async def test_a_registry_that_is_away_ends_no_session(client, op, code, closed_port, caplog):
    await client.send(Op.JOIN, b"a")
    await client.answer()
    membership = (await get_node()).membership
    away = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    away._node = membership.registry._node
    there, membership.registry = membership.registry, away
    try:
        await client.send(op, b"a" if op == Op.LEAVE else b"b")
        assert error_of(await client.answer()) == code
    finally:
        membership.registry = there
        await away._client.aclose()
    await client.send(Op.HEARTBEAT)
    assert (await client.answer()).op == Op.HEARTBEAT_REPLY
    assert not any(record.exc_info for record in caplog.records)


class Gate:
    """A hook that is waited for: `entered` says that it was called, `opened` lets it return."""

    def __init__(self) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()

    async def wait(self) -> bool:
        self.entered.set()
        await asyncio.wait_for(self.opened.wait(), PATIENCE)
        return True


async def ask_gate(identity, room) -> bool:
    return await gate.wait()


async def receive_behind_gate(identity, op, body) -> None:
    await gate.wait()


gate = Gate()


@pytest.mark.parametrize(
    "case", [(Op.JOIN, "client"), (Op.CHANGE_ROOM, "server"), (Op.SEND, "server")]
)
async def test_session_that_ends_during_hook_stays_out(client, imgo, monkeypatch, case, caplog):
    """A session that is closed while a handler waits is in no group, and in no room of Redis."""
    op, ends = case
    monkeypatch.setattr(f"{__name__}.gate", Gate())
    imgo(ROOM_AUTHORIZER=f"{__name__}.ask_gate", RECEIVER=f"{__name__}.receive_behind_gate")
    node = await get_node()
    (session,) = node.hub.sessions.values()
    await client.send(op, b"a")
    await asyncio.wait_for(gate.entered.wait(), PATIENCE)
    if ends == "server":
        session.disconnect(CloseCode.KICKED)
    await node.dismiss(session)
    gate.opened.set()
    if ends == "server":
        await client.until_closed()
    await client.leave()
    assert (node.hub.groups, node.hub.sessions, node.entries) == ({}, {}, {})
    assert (session.rooms, await rooms()) == (set(), {})
    assert not any(record.exc_info for record in caplog.records)


async def echo(identity, op, body):
    if body == "bad":
        raise BadRequest("not this")
    if body == "bug":
        raise LookupError("a bug")
    if body == "unwritable":
        return {1, 2}
    return {"from": identity.key, "op": op, "body": body}


async def test_a_message_from_a_client_goes_to_the_receiver(client, imgo, caplog):
    imgo(RECEIVER="tests.push.connect.test_room_ops.echo")
    for body, answer in (
        ({"a": [1, None]}, {"from": "u1", "op": 4, "body": {"a": [1, None]}}),
        ("text", {"from": "u1", "op": 4, "body": "text"}),
        ("bad", {"error": {"code": "bad_request", "message": "not this"}}),
    ):
        await client.send(Op.SEND, body, 9)
        reply = await client.answer()
        assert (reply.op, reply.seq, json.loads(reply.body)) == (Op.MESSAGE, 9, answer)
    assert caplog.text == ""
    for body in ("bug", "unwritable"):
        await client.send(Op.SEND, body)
        message = json.loads((await client.answer()).body)["error"]["message"]
        assert message == "internal error"
    assert "LookupError" in caplog.text
