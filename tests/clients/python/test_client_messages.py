"""Messages in the Python client: acknowledgements, duplicates, slow readers, receipts."""

import asyncio
import json

import pytest

from imgo_client.frames import Frame, Op
from tests import eventually

from .peers import take, until_no_more


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
        await until_no_more(lambda: sent)
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
