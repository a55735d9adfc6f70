"""Who is in a room, in the Python client, against a server that does what the test says."""

import asyncio

import pytest

from imgo_client import Member, NotOpen, Refused
from imgo_client.frames import Frame, Op
from tests import eventually

ROOM = "chat"


def rows(*keys):
    return [{"key": key, "info": {"name": key.title()}} for key in keys]


def snapshot(version, *keys):
    return {"room": ROOM, "version": version, "count": len(keys), "members": rows(*keys)}


def change(base, version, joined, left, count):
    said = {"joined": rows(*joined), "left": left, "count": count}
    return Frame(Op.PRESENCE_CHANGE, 0, {"room": ROOM, "base": base, "version": version, **said})


def watch(room):
    """All that a room tells of who is there."""
    events = []
    for event in ("join", "leave", "change"):
        room.presence.on(event, lambda member, event=event: events.append((event, member.key)))
    room.presence.on("update", lambda presence: events.append(("update", presence.count)))
    return events


def keys_of(room):
    return [member.key for member in room.presence]


def serving(*answers, frames=()):
    """A script: questions are answered with these in turn; then `frames` follow the first one."""

    async def script(peer):
        await peer.accept(**{ROOM: {}})
        while True:
            body = answers[min(len(script.asked), len(answers) - 1)]
            script.asked.append(await peer.expect(Op.PRESENCE, body))
            if len(script.asked) == 1:
                for frame in frames:
                    await peer.send(frame)

    script.asked = []
    return script


async def test_the_list_is_asked_for_and_follows_changes(serve, make):
    frames = [change("e.1", "e.2", ["eve"], ["ann"], 2)]
    script = serving(snapshot("e.1", "ann", "bob"), frames=frames)
    client, log = make(await serve(script))
    room = client.room(ROOM)
    events = watch(room)
    assert (room.presence.count, len(room.presence), bool(room.presence)) == (0, 0, True)
    async with client:
        await eventually(lambda: len(events) == 4)
    assert events == [("update", 2), ("leave", "ann"), ("join", "eve"), ("update", 2)]
    assert keys_of(room) == ["bob", "eve"]
    assert room.presence.get("eve") == Member("eve", {"name": "Eve"})
    assert ("bob" in room.presence, room.presence.get("ann")) == (True, None)
    assert (script.asked, log.of("error")) == ([ROOM], [])
    assert room.presence is room.presence


async def test_a_change_that_does_not_fit_has_the_list_asked_for_once(serve, make, monkeypatch):
    monkeypatch.setattr("imgo_client.members.SOON", 0.01)
    frames = [change("e.4", "e.5", ["eve"], [], 3), change("e.5", "e.6", [], ["eve"], 2)]
    answers = snapshot("e.1", "ann", "bob"), snapshot("e.6", "bob", "kim")
    script = serving(*answers, frames=frames)
    client, _ = make(await serve(script))
    room = client.room(ROOM)
    events = watch(room)
    async with client:
        await eventually(lambda: keys_of(room) == ["bob", "kim"])
        await room.presence.refresh()
    assert len(script.asked) == 3
    assert events == [("update", 2), ("leave", "ann"), ("join", "kim"), ("update", 2)]


async def test_after_a_reconnect_only_what_differs_is_told(serve, make):
    script = serving(snapshot("e.9", "ann", "bob"), snapshot("e.3", "bob", "eve"))
    server = await serve(script)
    client, _ = make(server)
    room = client.room(ROOM)
    events = watch(room)
    async with client:
        await eventually(lambda: events)
        events.clear()
        await server.peers[-1].close(4000)
        await eventually(lambda: len(events) == 3)
        assert events == [("leave", "ann"), ("join", "eve"), ("update", 2)]
        await server.peers[-1].close(4000)
        await eventually(lambda: len(script.asked) == 3)
    assert len(events) == 3  # who stayed is no event


@pytest.mark.parametrize(("code", "again"), [("not_found", False), ("unavailable", True)])
async def test_a_refusal_is_an_error_and_one_for_now_is_tried_again(
    serve, make, monkeypatch, code, again
):
    monkeypatch.setattr("imgo_client.members.SOON", 0.01)
    refusal = {"error": {"code": code, "message": "no"}}
    script = serving(refusal, snapshot("e.1", "ann"))
    client, log = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        assert room.presence.count == 0
        if again:
            await eventually(lambda: keys_of(room) == ["ann"])
        else:
            await eventually(lambda: log.of("error"))
            await room.presence.refresh()
    (error,) = log.of("error")
    assert (type(error), error.code) == (Refused, code)
    assert len(script.asked) == 2


async def test_a_user_may_ask_and_learns_why_it_was_refused(serve, make):
    refusal = {"error": {"code": "unavailable", "message": "not now"}}
    client, _ = make(await serve(serving(snapshot("e.1", "ann"), snapshot("e.2", "bob"), refusal)))
    room = client.room(ROOM)
    with pytest.raises(NotOpen):
        await room.presence.refresh()
    async with client:
        await eventually(lambda: keys_of(room) == ["ann"])
        await room.presence.refresh()
        assert keys_of(room) == ["bob"]
        with pytest.raises(Refused, match="not now"):
            await room.presence.refresh()


async def test_presence_of_a_joined_room_is_asked_for_at_once(serve, make):
    script = serving(snapshot("e.1", "ann"))
    client, _ = make(await serve(script))
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: room.state == "joined")
        assert script.asked == []
        assert not room.presence.truncated
        await eventually(lambda: keys_of(room) == ["ann"])


async def test_a_callback_that_fails_is_an_error_and_the_list_goes_on(serve, make):
    frames = [change("e.1", "e.2", ["eve"], [], 2), change("e.2", "e.3", [], ["eve"], 1)]
    client, log = make(await serve(serving(snapshot("e.1", "ann"), frames=frames)))
    room = client.room(ROOM)
    room.presence.on("join", lambda _: 1 / 0)
    events = watch(room)
    async with client:
        await eventually(lambda: ("leave", "eve") in events)
    assert [type(error) for error in log.of("error")] == [ZeroDivisionError]
    with pytest.raises(ValueError, match="no event 'jion'"):
        room.presence.on("jion", print)
    with pytest.raises(TypeError):
        room.presence.on("join", asyncio.sleep)


async def test_a_room_that_is_left_has_an_empty_list(serve, make):
    async def script(peer):
        await peer.accept(**{ROOM: {}})
        await peer.expect(Op.PRESENCE, snapshot("e.1", "ann"))
        await peer.expect(Op.LEAVE)
        await peer.send(change("e.1", "e.2", ["bob"], [], 2))
        await peer.push(7)
        await peer.until_gone()

    client, _ = make(await serve(script), ack=False)
    room = client.room(ROOM)
    async with client:
        await eventually(lambda: keys_of(room) == ["ann"])
        presence = room.presence
        await room.leave()
        async for _ in client:
            break
        assert (list(presence), presence.count) == ([], 0)
        assert room.presence is presence
