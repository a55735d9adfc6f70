"""publish: order, one loop for all callers, and the node's loop while there is one."""

import asyncio
import socket
import threading

import redis.asyncio as aioredis

from imgo_site.process_parts import process
from push.bus.envelope import close_envelope
from push.bus.publish import Publisher, leave_loop, publish, use_loop
from tests import PATIENCE, in_thread


def orders(*codes: int):
    return [close_envelope("test.group", [], code) for code in codes]


async def test_envelopes_arrive_in_order(listen):
    heard = await listen("test.group")
    await in_thread(publish, orders(*range(50)))
    assert [message["code"] for message in await heard()] == list(range(50))


async def test_publishers_of_many_threads_keep_their_own_order(listen):
    heard = await listen("test.group")

    async def publish_some(start: int) -> None:
        for n in range(10):
            await in_thread(publish, orders(start + n))

    await asyncio.gather(*(publish_some(100 * place) for place in range(5)))
    codes = [message["code"] for message in await heard()]
    assert sorted(codes) == [100 * place + n for place in range(5) for n in range(10)]
    for place in range(5):
        mine = [code for code in codes if code // 100 == place]
        assert mine == sorted(mine)


async def test_nothing_is_nothing(listen):
    heard = await listen("test.group")
    await in_thread(publish, [])
    assert await heard() == []


def publishing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "imgo-publish"]


async def test_a_process_without_a_node_has_one_loop_of_its_own(listen):
    await listen("test.group")
    for _ in range(3):
        await in_thread(publish, orders(1))
    assert len(publishing_threads()) == 1


async def test_a_process_publishes_on_its_nodes_loop_while_there_is_one(listen):
    heard = await listen("test.group")
    loop = asyncio.get_running_loop()
    use_loop(loop)
    use_loop(loop)  # of another node
    await in_thread(publish, orders(7))
    leave_loop(loop)
    await in_thread(publish, orders(8))
    assert [message["code"] for message in await heard()] == [7, 8]
    assert publishing_threads() == []
    leave_loop(loop)
    await in_thread(publish, orders(9))
    assert [message["code"] for message in await heard()] == [9]
    assert len(publishing_threads()) == 1


def test_a_loop_that_ends_closes_a_connection_to_a_silent_redis():
    publisher = Publisher()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = aioredis.Redis(port=server.getsockname()[1])
        future = asyncio.run_coroutine_threadsafe(client.ping(), publisher.loop())
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(1)  # it has connected, and waits for an answer
            publisher.close()
            while connection.recv(1_000):
                pass
        assert future.cancelled()


def test_a_node_that_is_gone_takes_no_publisher_along():
    gone = asyncio.new_event_loop()
    gone.close()
    use_loop(gone)
    publish(orders(1))
    assert publishing_threads()
    process.close()
    assert publishing_threads() == []
