"""What the Python client promises, against a server that does what the test says."""

import asyncio
import json

import pytest

from imgo_client import Client, Closed, NoAnswer, NotOpen, Refused
from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import CLOSED

# Not over Server-Sent Events, where there are no heartbeats, and one frame waits for the other.
BY_FRAMES = pytest.mark.parametrize("scheme", ["ws", "tcp"], indirect=True)


async def quiet(peer):
    """Accept, and read until the client goes."""
    await peer.accept()
    await peer.until_gone()


async def take(client, count):
    found = []
    async for message in client:
        found.append(message.id)
        message.ack()
        if len(found) == count:
            break
    return found


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


async def test_a_message_is_acknowledged_when_the_next_is_asked_for(serve, make):
    acks = []

    async def script(peer):
        await peer.accept()
        await peer.push(1, 2, 3)
        acks.extend(await peer.acks(2))
        await peer.until_gone()

    client, _ = make(await serve(script))
    async with client:
        got = []
        async for message in client:
            got.append((message.id, message.body, message.op))
            if len(got) == 3:
                await eventually(lambda: acks)
                break
    assert got == [(1, 1, 5), (2, 2, 5), (3, 3, 5)]
    assert acks == [["1", "2"]]  # together; and the third was never said to be done with


async def test_acknowledgements_are_split_to_the_size_that_a_server_takes(serve, make):
    first, count = 10**17, 200
    lists = []

    async def script(peer):
        await peer.accept()
        await peer.push(*range(first, first + count))
        lists.extend(await peer.acks(count))
        await peer.until_gone()

    client, _ = make(await serve(script), buffer=1_000)
    async with client:
        assert await take(client, count) == list(range(first, first + count))
        await eventually(lambda: sum(map(len, lists)) == count)
    assert max(len(json.dumps(ids, separators=(",", ":"))) for ids in lists) <= 1_024
    assert 4 <= len(lists) <= 20
    assert [int(one) for ids in lists for one in ids] == list(range(first, first + count))


async def test_what_could_not_be_acknowledged_is_when_there_is_a_session_again(serve, make):
    acks = []

    async def script(peer):
        await peer.accept()
        if len(server.peers) == 1:
            await peer.push(7)
            await eventually(was_taken.is_set)
            await peer.close(4000)
        else:
            acks.extend(await peer.acks(1))
        await peer.until_gone()

    was_taken = asyncio.Event()
    server = await serve(script)
    client, _ = make(server)
    async with client:
        async for message in client:
            was_taken.set()
            await eventually(lambda: client.state == "waiting")
            message.ack()
            message.ack()
            await eventually(lambda: acks)
            break
    assert acks == [["7"]]


async def test_what_comes_again_is_dropped_and_acknowledged_again(serve, make):
    acks = []

    async def script(peer):
        await peer.accept()
        await peer.push(1, 2)
        acks.extend(await peer.acks(2))
        if len(server.peers) == 1:
            await peer.hang_up(1011, "the acknowledgements never arrived")
        else:
            await peer.push(3)
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server)
    async with client:
        assert await take(client, 3) == [1, 2, 3]
    assert sorted(one for ids in acks for one in ids) == ["1", "1", "2", "2"]


async def test_what_waits_here_or_is_in_hand_is_not_taken_twice(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.push(1, 2)
        if len(server.peers) == 1:
            await eventually(in_hand.is_set)
            await peer.close(4000)
        else:
            await peer.push(3)
        await peer.until_gone()

    got, in_hand = [], asyncio.Event()

    async def handler(message):
        in_hand.set()
        await eventually(lambda: len(server.peers) == 2 and client.state == "open")
        got.append(message.id)

    server = await serve(script)
    client, log = make(server)
    running = asyncio.ensure_future(client.run(handler))
    await eventually(lambda: len(got) == 3)
    await client.close()
    await running
    assert got == [1, 2, 3]
    assert log.of("error") == []


async def test_a_failed_message_is_told_and_comes_again_with_the_next_session(serve, make):
    acks = []

    async def script(peer):
        await peer.accept()
        if len(server.peers) < 3:
            await peer.push(*((1, 2, 3) if len(server.peers) == 1 else (2,)))
            acks.append(await peer.acks(2 if len(server.peers) == 1 else 1))
            await peer.close(4000)
        await peer.until_gone()

    got = []

    async def handler(message):
        got.append(message.id)
        if message.id == 2 and got.count(2) == 1:
            raise LookupError("no such order")

    server = await serve(script)
    client, log = make(server)
    running = asyncio.ensure_future(client.run(handler))
    await eventually(lambda: len(acks) == 2)
    await client.close()
    await running
    assert got == [1, 2, 3, 2]
    assert [sorted(one for ids in lists for one in ids) for lists in acks] == [["1", "3"], ["2"]]
    assert [(type(error), str(error)) for error in log.of("error")] == [
        (LookupError, "no such order")
    ]


async def test_a_session_without_acknowledgement_says_nothing(serve, make):
    said = []

    async def script(peer):
        await peer.accept()
        await peer.send(Frame(Op.MESSAGE, 0, "x"), Frame(1000, 0, "y"))
        said.extend(await peer.until_gone())

    server = await serve(script)
    client, _ = make(server, ack=False)
    async with client:
        got = []
        async for message in client:
            got.append((message.id, message.op, message.body))
            message.ack()
            if len(got) == 2:
                break
    assert got == [(0, 5, "x"), (0, 1000, "y")]
    assert "ack" not in server.peers[0].auth
    await eventually(lambda: len(server.peers) == 1 and said == [])


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


async def test_a_slow_reader_stops_the_reading_and_loses_nothing(serve, make):
    count, sent = 3_000, 0

    async def script(peer):
        nonlocal sent
        await peer.accept()
        for number in range(1, count + 1):
            await peer.send(Frame(Op.MESSAGE, 0, "x" * 5_000, 2, number))
            sent = number
        await peer.until_gone()

    client, _ = make(await serve(script), buffer=10)
    async with client:
        before = await eventually(lambda: sent) and -1
        while sent != before:  # until the server can send no more
            before = sent
            for _ in range(50):
                await asyncio.to_thread(int)  # a round of the loop that takes a moment
        assert 0 < sent < count
        assert await take(client, count) == list(range(1, count + 1))


async def test_a_handler_may_ask_while_messages_wait(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.push(*range(1, 51))
        for _ in range(50):
            while (request := await peer.receive()).op == Op.ACK:
                pass
            await peer.send(Frame(Op.MESSAGE, request.seq, request.body))
        await peer.until_gone()

    answers = []

    async def handler(message):
        answers.append(await client.request(message.id))

    client, log = make(await serve(script), buffer=1)
    running = asyncio.ensure_future(client.run(handler))
    await eventually(lambda: len(answers) == 50)
    await client.close()
    await running
    assert (answers, log.of("error")) == (list(range(1, 51)), [])


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


async def test_the_last_acknowledgement_leaves_before_the_close(serve, make):
    said = []

    async def script(peer):
        await peer.accept()
        await peer.push(1)
        said.extend(await peer.until_gone())

    client, _ = make(await serve(script))
    async with client:
        await take(client, 1)
    await eventually(lambda: [frame.body for frame in said] == [["1"]])


async def test_a_loop_that_fails_leaves_its_message_for_the_next_session(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.push(1)
        await peer.until_gone()

    async def fail():
        async with client:
            async for message in client:
                raise LookupError(message.id)

    client, _ = make(await serve(script))
    for _ in range(2):
        with pytest.raises(LookupError, match="1"):
            await fail()
    async with client:
        assert await take(client, 1) == [1]


@pytest.mark.parametrize("moment", ["connecting", "open", "waiting", "in a handler", "asking"])
async def test_it_can_be_cancelled_at_any_moment(serve, make, moment):
    async def script(peer):
        if moment != "connecting":
            await peer.accept()
        if moment == "waiting":
            await peer.close(4000)
        elif moment == "in a handler":
            await peer.push(1)
        await peer.until_gone()

    async def handler(message):
        reached.set()
        await asyncio.Event().wait()

    async def work():
        async with client:
            if moment == "asking":
                await eventually(lambda: client.state == "open")
                reached.set()
                await client.request(1)
            await client.run(handler)

    reached = asyncio.Event()
    client, log = make(await serve(script), backoff=(30, 30), timeout=30)
    task = asyncio.ensure_future(work())
    if moment in ("in a handler", "asking"):
        await reached.wait()
    else:
        await eventually(lambda: client.state == moment)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (client.state, log.of("error")) == ("closed", [])


async def test_close_ends_a_loop_in_another_task(serve, make):
    client, _ = make(await serve(quiet))
    async with client:
        loop = asyncio.ensure_future(client.run(print))
        await eventually(lambda: client.state == "open")
        await client.close()
        await client.close()
        await loop
    with pytest.raises(NotOpen):
        await client.request(1)


async def test_a_close_in_the_moment_of_the_opening_sends_what_is_due(serve, make, monkeypatch):
    async def flush(session):
        flushed.append(session)

    flushed: list[object] = []
    monkeypatch.setattr("imgo_client.session.Session.flush", flush)
    client, log = make(await serve(quiet))
    client.on("open", lambda _: closings.append(asyncio.ensure_future(client.close())))
    closings: list[asyncio.Future[None]] = []
    async with client:
        await eventually(lambda: bool(closings))
        await closings[0]
    assert len(flushed) == 1
    assert log.of("error") == []


async def test_a_close_that_is_cancelled_ends_at_once(serve, make, monkeypatch):
    async def never(session):
        flushing.set()
        await asyncio.Event().wait()

    flushing = asyncio.Event()
    monkeypatch.setattr("imgo_client.lifetime.PARTING", 1_000)
    client, log = make(await serve(quiet))
    async with client:
        await eventually(lambda: client.state == "open")
        monkeypatch.setattr("imgo_client.session.Session.flush", never)
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)  # `close` has begun, and has not reached the parting yet
        flushing.clear()  # the session itself may have flushed before
        await flushing.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await eventually(lambda: client.state == "closed")
    assert log.of("error") == []


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


@BY_FRAMES
async def test_connected_ends_with_the_client(serve, make):
    async def refuse(peer):
        await peer.close(4503, "replaced")

    async def say_nothing(peer):
        await peer.until_gone()

    client, _ = make(await serve(refuse))
    async with client:
        with pytest.raises(Closed, match="4503 replaced"):
            await client.connected()
    client, _ = make(await serve(say_nothing))
    async with client:
        waiting = asyncio.create_task(client.connected())
        await asyncio.sleep(0)
    with pytest.raises(NotOpen):
        await waiting


async def test_it_begins_anew_after_it_was_closed_for_good(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.push(len(server.peers))
        if len(server.peers) == 1:
            await peer.close(4503, "replaced")
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server)
    async with client:
        assert await take(client, 1) == [1]
        with pytest.raises(Closed, match="4503 replaced"):
            await take(client, 1)
    async with client:
        assert await take(client, 1) == [2]


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


async def test_client_is_told_what_another_device_has_read(serve, make):
    async def script(peer):
        await peer.accept()
        for body in ({"ids": ["1", "9"]}, {"ids": [1, "x"]}, None):
            await peer.send(Frame(Op.READ, 0, body))
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server, device="laptop")
    read = []
    client.on("read", read.append)
    async with client:
        await eventually(lambda: read)
    assert (read, server.peers[0].auth["device"]) == ([[1, 9]], "laptop")


@pytest.mark.parametrize("asks", [True, False])
async def test_messages_that_are_taken_back_are_told_or_dropped_if_they_wait(serve, make, asks):
    """The retraction names a message that was handled, one that waits, and an unknown one."""

    async def script(peer):
        await peer.accept()
        for message_id in (1, 2, 3):
            await peer.send(Frame(Op.MESSAGE, 0, message_id, 2, message_id))
            if message_id == 1:
                await eventually(lambda: found == [1])
        await peer.send(Frame(Op.RETRACTION, 0, {"ids": ["1", "2", "9"]}))
        await peer.send(Frame(Op.RETRACTION, 0, {"ids": [1, "x"]}))
        await peer.send(Frame(Op.RETRACTION, 0, None))
        told.set()
        await peer.until_gone()

    found, retracted, told = [], [], asyncio.Event()
    server = await serve(script)
    client, _ = make(server)
    if asks:
        client.on("retracted", retracted.append)
    async with client:
        found += await take(client, 1)
        await told.wait()
        await eventually(lambda: retracted or not asks)
        if asks:
            assert await take(client, 1) == [3]
    assert retracted == ([[1, 9]] if asks else [])
    assert bool(server.peers[0].auth.get("retractions")) is asks
