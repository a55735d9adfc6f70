"""The Python client's session: auth, requests, rooms, heartbeats and errors.

Messages are in test_client_messages.py, the end of a client in test_client_end.py.
"""

import asyncio
import json

import pytest

from imgo_client import Client, NoAnswer, NotOpen, Refused
from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import CLOSED, quiet, take

# Not over Server-Sent Events, where there are no heartbeats, and one frame waits for the other.
BY_FRAMES = pytest.mark.parametrize("scheme", ["ws", "tcp"], indirect=True)


async def test_the_auth_frame_says_what_was_asked_for(serve, make, scheme):
    server = await serve(quiet)
    options = {"rooms": ["a", "b"], "since": 2**60, "platform": "p", "device": "d"}
    client, log = make(server, **options)
    async with client:
        await eventually(lambda: client.state == "open")
    assert server.peers[0].auth == {
        "token": "abc",
        "ack": True,
        "rooms": ["a", "b"],
        "since": str(2**60),
        "platform": "p",
        "device": "d",
    }
    assert log.events == [
        ("state", "connecting"),
        ("state", "open"),
        ("open", {"session": "session-0", "rooms": {}} if scheme == "http" else {}),
        ("state", "closed"),
        ("close", CLOSED),
    ]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_token_function_is_asked_for_every_attempt(serve, scheme, *, is_async):
    async def script(peer):
        await peer.accept()
        if len(server.peers) < 3:
            await peer.close(4000)
        await peer.until_gone()

    count = 0

    def token():
        nonlocal count
        count += 1
        return f"token {count}"

    async def later():
        return token()

    server = await serve(script)
    async with Client(server.url, later if is_async else token, backoff=(0.01, 0.02)) as client:
        await eventually(lambda: len(server.peers) == 3 and client.state == "open")
    assert [peer.auth["token"] for peer in server.peers] == ["token 1", "token 2", "token 3"]


@pytest.mark.long(but=["tcp"])
@BY_FRAMES
async def test_a_request_gets_its_own_answer_and_a_late_one_is_no_message(serve, make):
    async def script(peer):
        await peer.accept()
        first, second = await peer.receive(), await peer.receive()
        await peer.send(Frame(Op.MESSAGE, second.seq, "for the second"))
        await peer.send(Frame(Op.MESSAGE, first.seq, {"error": "the receiver's own"}))
        third = await peer.receive()
        await eventually(late.is_set)
        await peer.send(Frame(Op.MESSAGE, third.seq, "too late"))
        await peer.push(9)
        await peer.until_gone()

    late = asyncio.Event()
    client, _ = make(await serve(script), timeout=3)
    async with client:
        await eventually(lambda: client.state == "open")
        answers = await asyncio.gather(client.request(1), client.request(2))
        assert answers == [{"error": "the receiver's own"}, "for the second"]
        with pytest.raises(NoAnswer):
            await client.request(3)
        late.set()
        assert await take(client, 1) == [9]


async def test_a_request_ends_with_its_session(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.receive()
        await peer.hang_up(1011, "")

    client, _ = make(await serve(script))
    async with client:
        await eventually(lambda: client.state == "open")
        with pytest.raises(NotOpen):
            await client.request(1)


async def test_rooms_that_were_changed_during_the_auth_are_made_good(serve, make):
    asked = []

    async def script(peer):
        frame = await peer.receive()
        seen_auth.set()
        await eventually(changed.is_set)
        await peer.send(Frame(Op.AUTH_REPLY, frame.seq, {}))
        for _ in range(2):
            request = await peer.receive()
            asked.append((request.op, request.body))
            await peer.send(Frame(request.op + 1, request.seq, {}))
        await peer.until_gone()

    seen_auth, changed = asyncio.Event(), asyncio.Event()
    client, log = make(await serve(script), rooms=["a", "b"])
    async with client:
        await seen_auth.wait()
        assert await client.join("c") is False
        assert await client.leave("a") is False
        changed.set()
        await eventually(lambda: len(asked) == 2)
    assert sorted(asked) == [(Op.JOIN, "c"), (Op.LEAVE, "a")]
    assert (client.rooms, log.of("error")) == (["b", "c"], [])


@BY_FRAMES
async def test_rooms_that_the_auth_frame_has_no_space_for_are_joined_after_it(serve, make):
    joined = []

    async def script(peer):
        await peer.accept()
        waiting = [await peer.receive(), await peer.receive()]  # a join, and the user's leave
        while True:
            for request in waiting:
                joined.append(request.body)
                await peer.send(Frame(request.op + 1, request.seq, {}))
            waiting = [await peer.receive()]

    rooms = [f"a room with a rather long name {number}" for number in range(100)]
    server = await serve(script)
    client, log = make(server, rooms=rooms)
    async with client:
        await eventually(lambda: client.state == "open")
        assert await client.leave(rooms[-1]) is True  # before its turn
        await eventually(lambda: len(joined) + len(server.peers[0].auth["rooms"]) >= 100)
    auth = server.peers[0].auth
    assert len(json.dumps(auth, separators=(",", ":"))) <= 1024
    assert sorted([*auth["rooms"], *joined]) == sorted(rooms)
    assert joined.count(rooms[-1]) == 1  # which left it
    assert log.of("error") == []


async def test_a_refused_room_is_forgotten(serve, make):
    error = {"error": {"code": "room_forbidden", "message": "Not allowed in the room 'x'."}}

    async def script(peer):
        await peer.accept()
        while True:
            request = await peer.receive()
            await peer.send(Frame(request.op + 1, request.seq, error))

    client, _ = make(await serve(script), rooms=["a"])
    async with client:
        await eventually(lambda: client.state == "open")
        for ask in (client.join, client.change_room):
            with pytest.raises(Refused, match="Not allowed") as caught:
                await ask("x")
            assert caught.value.code == "room_forbidden"
            assert client.rooms == ["a"]
        with pytest.raises(Refused, match="Not allowed"):
            await client.request("x")


@pytest.mark.long(but=["ws"])
@BY_FRAMES
async def test_a_server_that_does_not_answer_a_heartbeat_is_left(serve, make):
    async def script(peer):
        await peer.accept()
        while (await peer.receive()).op == Op.HEARTBEAT:
            if len(server.peers) == 2:
                await peer.send(Frame(Op.HEARTBEAT + 1, 0, {}))
                answered.append(peer)

    answered = []
    server = await serve(script)
    client, log = make(server, heartbeat=0.05, timeout=3)
    async with client:
        await eventually(lambda: len(answered) > 3)
        assert client.state == "open"
    assert [end.reason for end in log.of("close")] == ["no answer to a heartbeat"]
    assert len(server.peers) == 2


@pytest.mark.long(but=["ws"])
@BY_FRAMES
async def test_heartbeats_go_on_while_messages_wait_and_the_session_too(serve, make):
    beats = 0

    async def script(peer):
        nonlocal beats
        await peer.accept()
        await peer.push(1)
        await peer.push(2)
        await peer.push(3)
        while (await peer.receive()).op == Op.HEARTBEAT:
            beats += 1  # answered by nobody: what the client would not read
        await peer.until_gone()

    server = await serve(script)
    client, log = make(server, heartbeat=0.1, timeout=2, buffer=1)
    async with client:
        await eventually(lambda: beats > 1)  # longer than an answer may take
        assert client.state == "open"
    assert log.of("close") == []


async def test_a_client_runs_once_at_a_time(serve, make):
    client, _ = make(await serve(quiet))
    async with client:
        with pytest.raises(RuntimeError, match="running"):
            await client.__aenter__()


@BY_FRAMES
async def test_connected_waits_for_a_session_over_failed_attempts(serve, make):
    async def script(peer):
        if len(server.peers) > 1:
            await quiet(peer)

    server = await serve(script)
    client, log = make(server)
    with pytest.raises(NotOpen, match="not running"):
        await client.connected()
    async with client:
        await client.connected()
        assert (client.state, len(server.peers)) == ("open", 2)
        await client.connected()
    with pytest.raises(NotOpen, match="not running"):
        await client.connected()
    assert log.of("error") == []


async def test_error_of_a_callback_is_reported_and_without_a_callback_logged(serve, make, caplog):
    def told():
        return [record.getMessage() for record in caplog.records if record.name == "imgo_client"]

    server = await serve(quiet)
    client = Client(server.url, "abc")
    client.on("open", lambda body: 1 / 0)
    async with client:
        await eventually(lambda: client.state == "open")
    assert told() == ["ZeroDivisionError: division by zero"]

    def again(error):
        raise error

    client.on("error", again)
    async with client:
        await eventually(lambda: client.state == "open")
    assert told()[1:] == ["a callback for errors failed"]
    client.off("error", again)
    with pytest.raises(ValueError, match="there is no event 'message'"):
        client.on("message", print)
    with pytest.raises(TypeError, match="plain function"):
        client.on("error", quiet)


async def test_refusal_that_repeats_is_logged_once_without_a_callback(serve, caplog):
    async def refuse(peer):
        await peer.close(4401, "The token is not valid.")

    server = await serve(refuse)
    client = Client(server.url, "abc", backoff=(0.01, 0.05))
    async with client:
        await eventually(lambda: len(server.peers) > 2)
    texts = [record.getMessage() for record in caplog.records if record.name == "imgo_client"]
    assert texts == [
        "the server refuses the session, the client goes on trying: The token is not valid. (4401)"
    ]
    caplog.clear()
    client.on("close", lambda ending: None)
    async with client:
        await eventually(lambda: len(server.peers) > 5)
    assert [record for record in caplog.records if record.name == "imgo_client"] == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"url": "ftp://example.org/"}, ValueError),
        ({"url": "http://example.org/"}, ValueError),
        ({"url": "https://user:password@example.org/sub/events"}, ValueError),
        ({"url": "ws:///sub"}, ValueError),
        ({"url": "tcp://host:port"}, ValueError),
        ({"token": 7}, TypeError),
        ({"rooms": [""]}, ValueError),
        ({"rooms": [7]}, ValueError),
        ({"since": -1}, ValueError),
        ({"since": "7"}, TypeError),
        ({"rooms": "lobby"}, TypeError),
        ({"rooms": 5}, TypeError),
        ({"ack": "yes"}, TypeError),
        ({"platform": 5}, TypeError),
        ({"device": None}, TypeError),
        ({"seen": 5}, TypeError),
        ({"tls": 5}, TypeError),
        ({"max_body": "a"}, TypeError),
        ({"max_body": 0}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"heartbeat": "x"}, TypeError),
        ({"buffer": True}, TypeError),
        ({"backoff": 5}, TypeError),
        ({"backoff": ("1", "2")}, TypeError),
        ({"heartbeat": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"buffer": -1}, ValueError),
        ({"backoff": (1, 0.5)}, ValueError),
        ({"backoff": (0, 1)}, ValueError),
    ],
    ids=str,
)
def test_wrong_argument_is_refused_with_a_text_that_names_it(arguments, error):
    (name,) = arguments
    text = "url|host|Port" if name == "url" else name.removesuffix("s")
    with pytest.raises(error, match=text):
        Client(**{"url": "ws://example.org/sub", **arguments})


async def test_no_log_shows_the_token_or_a_body(serve, scheme, caplog):
    async def script(peer):
        await peer.accept()
        await peer.send(Frame(Op.MESSAGE, 0, "a private message", 2, 1))
        await peer.acks(1)
        await peer.close(4000)

    for name in ("", "asyncio", "websockets.client", "websockets.server"):
        caplog.set_level("DEBUG", name)
    server = await serve(script)
    async with Client(server.url, "a secret token", backoff=(0.01, 0.01)) as client:
        assert await take(client, 1) == [1]
        await eventually(lambda: len(server.peers) > 1)
    said = [(one.name, one.getMessage()) for one in caplog.records]
    shown = {name for name, text in said if "secret" in text or "private" in text}
    # The other end shows what there was to be seen.
    assert shown == ({"websockets.server"} if scheme == "ws" else set())


def test_nothing_secret_is_in_its_repr():
    client = Client("ws://example.org/sub?apikey=secret", "secret")
    assert repr(client) == "<Client ws://example.org/sub closed>"
