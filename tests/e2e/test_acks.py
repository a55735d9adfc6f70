"""Sessions that acknowledge: ids in their frames, pending and delivered again until op 22."""

import struct

from .frames import ACK, HEARTBEAT, MESSAGE, Frame, parse_text
from .world import World, new_key

BAD_FRAME = 4500


async def test_frames_carry_the_id_of_the_push(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport, ack=True)
    message_id = await world.api.push({"key": key}, b'{"a" : 1.00}')
    assert await client.receive() == Frame(2, MESSAGE, 0, b'{"a" : 1.00}', message_id)


async def test_frames_of_other_sessions_carry_no_id(world: World, transport: str) -> None:
    key = new_key()
    old = await world.session(key, transport)
    await world.session(key, transport, ack=True)
    await world.api.push({"key": key}, b'"for both"')
    assert await old.receive() == Frame(1, MESSAGE, 0, b'"for both"')


async def test_the_id_is_a_json_string_in_text(world: World) -> None:
    key = new_key()
    client = await world.session(key, "text", ack=True)
    number = await world.api.push({"key": key}, b"{}")
    text = await client.receive_raw()
    assert text == f'[{{"ver":2,"op":5,"seq":0,"id":"{number}","body":{{}}}}]'
    assert parse_text(text) == [Frame(2, MESSAGE, 0, b"{}", number)]


async def test_the_id_is_in_a_longer_header_in_binary(world: World) -> None:
    key = new_key()
    client = await world.session(key, "binary", ack=True)
    number = await world.api.push({"key": key}, b"[1]")
    expected = struct.pack(">ihhiiq", 24 + 3, 24, 2, MESSAGE, 0, number) + b"[1]"
    assert await client.receive_raw() == expected


async def test_a_message_is_pending_until_it_is_acknowledged(world: World, transport: str) -> None:
    key = new_key()
    client = await world.session(key, transport, ack=True)
    for n in range(3):
        await world.api.push({"key": key}, n)
    first, second, third = [await client.receive() for _ in range(3)]
    await client.ack(second)
    await world.wait_for_pending(key, 2)
    await client.close()

    client = await world.session(key, transport, node=1, ack=True)
    assert [await client.receive() for _ in range(2)] == [first, third]
    await client.ack(first, third)
    await world.wait_for_pending(key, 0)
    # An ack has no answer: the next thing to come is what comes next.
    assert (await client.ask(HEARTBEAT)).op == HEARTBEAT + 1


async def test_ids_may_be_numbers_and_unknown_ones_are_ignored(
    world: World, transport: str
) -> None:
    key = new_key()
    client = await world.session(key, transport, ack=True)
    await world.api.push({"key": key}, b"1")
    message = await client.receive()
    await client.send(ACK, [message.id, 2**53, str(2**62)])
    await world.wait_for_pending(key, 0)
    await client.heartbeat()


async def test_another_keys_message_cannot_be_acknowledged(world: World) -> None:
    key, stranger = new_key(), new_key()
    number = await world.api.push({"key": key}, b'"mine"')
    thief = await world.session(stranger, ack=True)
    own = await world.api.push({"key": stranger}, b'"own"')
    await thief.send(ACK, [number, own])
    await world.wait_for_pending(stranger, 0)
    assert await world.api.pending(key) == 1


async def test_an_ack_that_is_no_list_closes(world: World, transport: str) -> None:
    for body in ({"id": 1}, [True], ["x"], [-1], [2**63], 7):
        client = await world.session(new_key(), transport, ack=True)
        await client.send(ACK, body)
        assert (await client.ended()).code == BAD_FRAME


async def test_since_leaves_out_what_the_client_has(world: World, transport: str) -> None:
    key = new_key()
    ids = [await world.api.push({"key": key}, n) for n in range(3)]
    await world.settle()
    client = await world.session(key, transport, ack=True, since=str(ids[0]))
    assert [(await client.receive()).id for _ in range(2)] == ids[1:]
    last = await world.api.push({"key": key}, b'"the end"')
    assert (await client.receive()).id == last


async def test_a_second_device_that_asks_gets_what_is_pending_too(world: World) -> None:
    key = new_key()
    ids = [await world.api.push({"key": key}, n) for n in range(3)]
    first = await world.session(key, "text", ack=True)
    assert [(await first.receive()).id for _ in range(3)] == ids
    second = await world.session(key, "binary", node=1, ack=True, since=0)
    assert [(await second.receive()).id for _ in range(3)] == ids


async def test_an_ack_of_one_device_is_enough(world: World) -> None:
    key = new_key()
    devices = [await world.session(key, "tcp", 0, ack=True), await world.session(key, "text", 1)]
    await world.api.push({"key": key}, b'"for both"')
    message = await devices[0].receive()
    assert (await devices[1].receive()).body == message.body
    await world.wait_for_pending(key, 0)
