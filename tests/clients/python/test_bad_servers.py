"""Servers that are not what they should be: told of, and never met in a hot loop."""

import asyncio
import random
from functools import partial

import httpx
import pytest

from imgo_client import Client, Closed, FileSeen, ImgoError, NoAnswer, ProtocolError
from imgo_client.frames import Frame, Op, encode_binary
from push.wire import CloseCode
from tests import eventually

from .peers import HOST, Log, Server

ATTEMPTS = 4  # as many as a test waits for
SHORTEST = 0.01  # seconds: the client's shortest pause in these tests


# A transport hands the code on as it is: each code has one proof, and each transport one code.
COMING_BACK = [code for code in CloseCode if code.reconnect]
STAYING_AWAY = sorted({4500, *(code for code in CloseCode if not code.reconnect), 4599, 4999})
FAREWELLS = [{}, [], None, "bye", {"code": "4500", "reason": 7, "reconnect": "no"}, {"code": True}]


async def meet(server, make, **options):
    """The log of a client that has met the server as often as `ATTEMPTS`."""
    client, log = make(server, **options)
    async with client:
        await eventually(lambda: len(log.of("close")) >= ATTEMPTS)
        assert client.state in ("connecting", "waiting", "open")
    assert client.state == "closed"
    assert len(server.peers) <= len(log.of("close")) + 1
    log.assert_not_hot(SHORTEST)
    return log


@pytest.mark.parametrize("code", COMING_BACK, ids=lambda code: code.name)
@pytest.mark.long(but=[*(f"ws-{code.name}" for code in COMING_BACK), "tcp-REVOKED", "http-REVOKED"])
async def test_it_comes_back_after_a_code_below_4500(serve, make, code):
    async def script(peer):
        await peer.accept()
        await peer.close(code, code.reason)

    log = await meet(await serve(script), make)
    assert log.of("error") == []
    assert {(end.code, end.reason, end.will_reconnect) for end in log.of("close")} == {
        (code, code.reason, True)
    }


@pytest.mark.parametrize("code", STAYING_AWAY, ids=int)
@pytest.mark.parametrize("is_open", [True, False], ids=["in a session", "before it"])
@pytest.mark.long(
    but=[
        *(f"ws-in a session-{code:d}" for code in STAYING_AWAY),
        *(f"{scheme}-before it-4999" for scheme in ("ws", "tcp", "http")),
        *(f"{scheme}-in a session-4999" for scheme in ("tcp", "http")),
    ]
)
async def test_it_stays_away_after_a_code_from_4500_on(serve, make, code, is_open):
    async def script(peer):
        if is_open:
            await peer.accept()
        else:
            await peer.receive()
        await peer.close(code, "go away")

    server = await serve(script)
    client, log = make(server)
    with pytest.raises(Closed) as caught:
        await client.run(print)
    assert (caught.value.code, caught.value.reason) == (code, "go away")
    assert (len(server.peers), client.state, log.of("error")) == (1, "closed", [])
    (end,) = log.of("close")
    assert (end.code, end.will_reconnect, end.delay) == (code, False, 0.0)


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000])
async def test_it_comes_back_after_codes_of_websocket_and_after_none(serve, make, code):
    async def script(peer):
        await peer.accept()
        await peer.hang_up(code, "")

    log = await meet(await serve(script), make)
    assert (log.of("error"), len(log.of("open")) >= ATTEMPTS) == ([], True)


@pytest.mark.parametrize("farewell", FAREWELLS, ids=str)
@pytest.mark.long(
    but=[*(f"ws-{farewell}" for farewell in FAREWELLS), "tcp-{'code': True}", "http-{'code': True}"]
)
async def test_a_goodbye_that_says_nothing_is_one_to_come_back_from(serve, make, farewell):
    async def script(peer):
        await peer.accept()
        await peer.send(Frame(Op.DISCONNECT, 0, farewell))
        await peer.hang_up(1000, "")

    log = await meet(await serve(script), make)
    assert {end.will_reconnect for end in log.of("close")} == {True}


async def test_a_server_may_forbid_to_come_back_with_any_code(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.send(Frame(Op.DISCONNECT, 0, {"code": 4000, "reason": "", "reconnect": False}))
        await peer.hang_up(1000, "")

    client, _ = make(await serve(script))
    with pytest.raises(Closed, match="4000"):
        await client.run(print)


async def test_a_goodbye_that_no_close_follows_ends_the_session(serve, make, monkeypatch):
    monkeypatch.setattr("imgo_client.session.GOODBYE", 0.05)

    async def script(peer):
        await peer.accept()
        await peer.send(Frame(Op.DISCONNECT, 0, {"code": 4503, "reason": "r", "reconnect": False}))
        while True:  # and goes on sending
            await peer.push(1)
            await asyncio.sleep(0)

    client, _ = make(await serve(script))
    with pytest.raises(Closed, match="4503 r"):
        await client.run(print)


@pytest.mark.parametrize("is_open", [True, False], ids=["in a session", "before it"])
async def test_a_server_that_closes_at_once(serve, make, scheme, is_open):
    async def script(peer):
        if is_open:
            await peer.accept()

    log = await meet(await serve(script), make)
    # An HTTP server that gives no answer is told of.
    expected = {httpx.RemoteProtocolError} if scheme == "http" and not is_open else set()
    assert {type(error) for error in log.of("error")} == expected


async def test_a_server_that_never_answers(serve, make):
    async def script(peer):
        await peer.until_gone()

    log = await meet(await serve(script), make, timeout=0.05)
    assert {type(error) for error in log.of("error")} == {NoAnswer}


GARBAGE = {
    "ws": [
        "",
        "hello",
        "{}",
        "[1]",
        "[null]",
        '[{"op":"5"}]',
        '[{"op":5,"id":7,"body":1}]',
        '[{"op":5,"body":',
        "[" * 50_000,
        b"",
        b"\x00\xff",
    ],
    "tcp": [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        bytes(16),
        b"\xff" * 16,
        bytes.fromhex("0000001000110001000000050000000000"),
        encode_binary(Frame(Op.RAW, body=b"\x00" * 20)),
        encode_binary(Frame(Op.MESSAGE, body=b"x" * 40))[:20] + b"GET / HTTP/1.1\r\n" * 9,
    ],
    "http": [
        "data: hello\n\n",
        "data: [1]\n\n",
        'data: {"op":"5"}\n\n',
        'event: imgo\ndata: {"op":5,"id":7,"body":1}\n\n',
        "data: " + "[" * 50_000 + "\n\n",
        "event: open\ndata: {}\n\n",
        b"data: \x00\xff\n\n",
    ],
}


@pytest.mark.parametrize("is_open", [True, False], ids=["in a session", "before it"])
async def test_what_is_no_frame_ends_the_session_and_is_told(serve, make, scheme, is_open):
    pieces = GARBAGE[scheme]

    async def script(peer):
        if is_open:
            await peer.accept()
        await peer.raw(pieces[(len(server.peers) - 1) % len(pieces)])
        await peer.until_gone()

    server = await serve(script)
    client, log = make(server)
    async with client:
        await eventually(lambda: len(log.of("close")) >= len(pieces))
    errors = log.of("error")
    assert len(errors) >= len(pieces)
    assert {isinstance(error, ProtocolError) for error in errors} == {True}
    assert {(end.code, end.will_reconnect) for end in log.of("close")} == {(1002, True)}
    log.assert_not_hot(SHORTEST)


async def test_frames_that_are_out_of_place_are_ignored(serve, make):
    async def script(peer):
        await peer.send(Frame(Op.MESSAGE, 0, "before the auth reply"))
        await peer.accept()
        await peer.send(Frame(Op.AUTH_REPLY, 1, {}))
        for op in (-1, 0, 1, 3, 11, 19, 22, 254, 999, 2**31 - 1):
            await peer.send(Frame(op, 77, {"nobody": "asked"}))
        await peer.push(1)
        await peer.until_gone()

    client, log = make(await serve(script))
    got = []
    async with client:
        async for message in client:
            got.append((message.op, message.id))
            if len(got) == 2:
                break
    assert got == [(2**31 - 1, 0), (5, 1)]
    assert log.of("error") == []


async def test_a_message_that_is_too_large_ends_the_session(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.send(Frame(Op.MESSAGE, 0, "x" * 10_000))
        await peer.until_gone()

    log = await meet(await serve(script), make, max_size=5_000)
    assert {end.will_reconnect for end in log.of("close")} == {True}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["ws", "tcp", "http"])
async def test_random_bytes_from_the_first_one_on(make, kind, seed):
    dice = random.Random(seed)

    async def script(peer):
        for _ in range(5):
            await peer.raw(dice.randbytes(dice.randrange(1, 200)))
        await peer.hang_up(1000, "")

    async with Server("tcp", script).running() as server:
        server.url = server.url.replace("tcp://", f"{kind}://")
        log = await meet(server, make, timeout=0.5)
    assert {end.will_reconnect for end in log.of("close")} <= {True}
    assert len(log.of("error")) >= len(log.of("close"))


async def test_an_http_server_without_websockets(make):
    async def script(peer):
        await peer.raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with Server("tcp", script).running() as server:
        server.url = server.url.replace("tcp://", "ws://")
        log = await meet(server, make)
    assert "404" in str(log.of("error")[0])


@pytest.mark.parametrize("kind", ["ws", "wss", "tcp", "tcps", "http", "https"])
async def test_nobody_listens(kind, closed_port):
    client = Client(f"{kind}://{HOST}:{closed_port}/sub", "abc", backoff=(SHORTEST, 0.05))
    log = Log(client)
    async with client:
        await eventually(lambda: len(log.of("close")) >= ATTEMPTS)
    expected = httpx.ConnectError if kind.startswith("http") else OSError
    assert {isinstance(error, expected) for error in log.of("error")} == {True}
    log.assert_not_hot(SHORTEST)


async def cancelled():
    """A token from a task that somebody else has cancelled."""
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "answer",
    [
        partial(int, "x"),
        lambda: 7,
        lambda: asyncio.sleep(0, b"t"),
        lambda: asyncio.sleep(9),
        cancelled,
    ],
    ids=["raises", "gives a number", "gives bytes", "takes too long", "is cancelled"],
)
async def test_a_token_function_that_fails(serve, scheme, answer):
    async def script(peer):
        raise AssertionError("nobody should come without a token")

    server = await serve(script)
    client = Client(server.url, answer, backoff=(SHORTEST, 0.05), timeout=0.2)
    log = Log(client)
    async with client:
        await eventually(lambda: len(log.of("close")) >= ATTEMPTS)
    assert {type(error) for error in log.of("error")} <= {
        ValueError,
        TypeError,
        NoAnswer,
        ImgoError,
    }
    assert len(log.of("error")) >= ATTEMPTS
    log.assert_not_hot(SHORTEST)


class Clock:
    """asyncio, but for the time that the client sees, which stands still."""

    now = 0.0  # seconds

    def __getattr__(self, name):
        return getattr(asyncio, name)

    def get_running_loop(self):
        return self

    def time(self):
        return self.now


async def test_the_pauses_grow_until_a_session_has_lasted(serve, make, monkeypatch):
    async def script(peer):
        await peer.accept()
        if len(server.peers) == 6:
            await eventually(lambda: len(log.of("open")) == 6)
            clock.now += 0.1
        await peer.close(4000)
        await peer.until_gone()

    clock = Clock()
    monkeypatch.setattr("imgo_client.lifetime.asyncio", clock)
    monkeypatch.setattr("imgo_client.backoff.random.random", lambda: 1.0)
    server = await serve(script)
    client, log = make(server, backoff=(0.01, 0.1))
    async with client:
        await eventually(lambda: len(log.of("close")) >= 7)
    delays = [end.delay for end in log.of("close")[:7]]
    assert delays == pytest.approx([0.02, 0.04, 0.08, 0.1, 0.1, 0.02, 0.04])


async def test_pause_after_an_overload_is_twice_as_long(serve, make, monkeypatch):
    async def script(peer):
        await peer.accept()
        reasons = ["overloaded: come back later", "a service is unavailable", "overloaded"]
        await peer.close(4013, reasons[min(len(server.peers), 3) - 1])
        await peer.until_gone()

    monkeypatch.setattr("imgo_client.lifetime.asyncio", Clock())  # no session lasts
    monkeypatch.setattr("imgo_client.backoff.random.random", lambda: 1.0)
    server = await serve(script)
    client, log = make(server, backoff=(0.01, 0.5))
    async with client:
        await eventually(lambda: len(log.of("close")) >= 3)
    delays = [end.delay for end in log.of("close")[:3]]
    assert delays == pytest.approx([0.04, 0.08, 0.32])


async def test_a_failing_disk_is_told_and_messages_go_on(serve, make, tmp_path):
    async def script(peer):
        await peer.accept()
        await peer.push(1, 2)
        acks.extend(await peer.acks(2))
        await peer.until_gone()

    acks = []
    home = tmp_path / "home"
    home.mkdir()
    seen = FileSeen(home / "seen")
    home.rmdir()
    client, log = make(await serve(script), seen=seen)
    running = asyncio.ensure_future(client.run(lambda message: None))
    await eventually(lambda: acks)
    await client.close()
    await running
    assert {type(error) for error in log.of("error")} == {FileNotFoundError}
