"""The layers: what the in-process one keeps, and what the one of Redis says of a gap."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from channels.layers import channel_layers
from redis.asyncio.client import Pipeline

from push.bus import redis_publications
from push.bus.layers import (
    LAYER_ERRORS,
    InProcessChannelLayer,
    PubSubChannelLayer,
    forget_watcher,
    groups_add,
    groups_discard,
    groups_send,
    leave,
    reconnect,
    watch_gaps,
)
from tests import eventually, in_thread
from tests.services import Redis, redis_programs, start_first


def watcher_of(log: list[str]) -> Any:
    return SimpleNamespace(
        layer_lost=lambda: log.append("lost"), layer_regained=lambda: log.append("regained")
    )


async def test_a_burst_above_the_stock_capacity_arrives():
    layer = InProcessChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    for n in range(1000):
        await layer.group_send("g", {"type": "t", "n": n})
    assert [(await layer.receive(channel))["n"] for _ in range(1000)] == list(range(1000))


async def test_no_membership_expires():
    layer = InProcessChannelLayer(expiry=0, group_expiry=0)
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    await layer.group_send("g", {"type": "t", "n": 1})
    await layer.group_send("g", {"type": "t", "n": 2})
    assert [(await layer.receive(channel))["n"] for _ in range(2)] == [1, 2]


def test_it_is_what_the_embedded_mode_makes(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "push.layers.InProcessChannelLayer"}}
    assert isinstance(channel_layers["default"], InProcessChannelLayer)


# Redis pub/sub


@pytest.fixture
async def pubsub(settings, redis_client, monkeypatch) -> AsyncIterator[PubSubChannelLayer]:
    monkeypatch.setattr("push.bus.redis_listener.RETRY_INTERVAL", 0.01)
    layer = PubSubChannelLayer(hosts=[settings.REDIS_URL], prefix="t")
    yield layer
    await layer.flush()


class Reader:
    """What comes to one channel, and when the connection was lost and regained."""

    def __init__(self, layer: PubSubChannelLayer) -> None:
        self.log: list[Any] = []
        self._layer = layer
        layer.watch_gaps(watcher_of(self.log))

    async def join(self, *groups: str) -> None:
        self.channel = await self._layer.new_channel()
        await groups_add(self._layer, groups, self.channel)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            self.log.append((await self._layer.receive(self.channel))["n"])


@pytest.fixture
async def reader(pubsub) -> Reader:
    return Reader(pubsub)


def listening(redis_client) -> list[str]:
    """The ids of the connections that listen to a group of this layer."""
    rows = redis_client.client_list(_type="pubsub")
    return [row["id"] for row in rows if int(row["sub"])]


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Listen on a port, and answer nothing."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def kill(redis_client) -> None:
    """Redis closes the connections of all who listen."""
    assert redis_client.client_kill_filter(_type="pubsub") >= 1


async def send(layer, group: str, n: Any) -> None:
    await layer.group_send(group, {"type": "t", "n": n})


async def test_a_first_connection_is_nothing_that_was_lost(pubsub, reader):
    await reader.join("a")
    await groups_add(pubsub, ["b"], reader.channel)
    await send(pubsub, "b", 1)
    await eventually(lambda: reader.log)
    assert reader.log == [1]


@pytest.mark.parametrize("count", [1, 300])
async def test_gap_is_reported_before_anything_comes_and_when_all_has_come(
    pubsub, reader, redis_client, count
):
    groups = [f"g{n}" for n in range(count)]
    await reader.join(*groups)
    for _ in range(3):
        reader.log.clear()
        kill(redis_client)
        # Sent without pause: some of it before the loss is noticed, some before it is said.
        while "regained" not in reader.log:
            for group in groups[:3]:
                await send(pubsub, group, "early")
        assert reader.log[0] == "lost"
        assert [entry for entry in reader.log if entry != "early"] == ["lost", "regained"]
        for group in groups:
            await send(pubsub, group, group)
        await eventually(lambda: reader.log.count(groups[-1]))
        assert [entry for entry in reader.log if entry in groups] == groups


async def test_it_can_be_made_to_connect_anew(pubsub, reader, redis_client):
    await reader.join("a")
    before = listening(redis_client)
    await reconnect(pubsub)
    await eventually(lambda: reader.log == ["lost", "regained"])
    await eventually(lambda: listening(redis_client) and not {*before} & {*listening(redis_client)})
    await send(pubsub, "a", 1)
    await eventually(lambda: 1 in reader.log)


async def test_connection_closed_during_a_leave_is_an_error_of_the_layer(
    pubsub, reader, redis_client
):
    """Python 3.11 writes in a task of its own, which finds the connection without its writer."""
    await reader.join("a", "b")
    before = listening(redis_client)
    leaving = asyncio.create_task(groups_discard(pubsub, ["b"], reader.channel))
    (shard,) = pubsub._get_layer()._shards
    while not shard.listener._sending.locked():  # noqa: ASYNC110 - of all turns the first
        await asyncio.sleep(0)
    await reconnect(pubsub)
    (found,) = await asyncio.gather(leaving, return_exceptions=True)
    assert found is None or isinstance(found, LAYER_ERRORS)
    await eventually(lambda: reader.log == ["lost", "regained"])
    await eventually(lambda: listening(redis_client) and not {*before} & {*listening(redis_client)})
    await send(pubsub, "a", 1)
    await eventually(lambda: 1 in reader.log)


async def test_layer_closed_while_it_connects_anew_ends(pubsub, reader):
    """Python 3.11 may swallow the cancellation of the reader's task while it connects."""
    for _ in range(20):
        await reader.join("a")
        await reconnect(pubsub)
        async with asyncio.timeout(5):
            await pubsub.flush()


async def test_before_it_has_connected_there_is_nothing_to_connect_anew(pubsub, reader):
    await reconnect(pubsub)
    await reader.join("a")
    await send(pubsub, "a", 1)
    await eventually(lambda: reader.log)
    assert reader.log == [1]


async def test_groups_that_were_left_are_not_waited_for(pubsub, reader, redis_client):
    await reader.join("a", "b")
    joined = len(redis_client.pubsub_channels())
    await groups_discard(pubsub, ["b"], reader.channel)
    await eventually(lambda: len(redis_client.pubsub_channels()) == joined - 1)
    kill(redis_client)
    await eventually(lambda: "regained" in reader.log)
    await send(pubsub, "a", 1)
    await eventually(lambda: 1 in reader.log)


async def test_groups_that_are_joined_during_a_gap_are_joined(pubsub, reader, redis_client):
    await reader.join("a")
    kill(redis_client)
    await groups_add(pubsub, ["b", "c"], reader.channel)
    for n, group in enumerate("abc"):
        await send(pubsub, group, n)
    await eventually(lambda: {1, 2} <= set(reader.log))
    await eventually(lambda: "regained" in reader.log)


@pytest.fixture
def own_redis(tmp_path) -> Iterator[Redis]:
    """A Redis that may be stopped."""
    server = start_first(Redis, tmp_path, redis_programs())
    yield server
    server.remove()


async def test_a_redis_that_was_restarted_is_found_again(own_redis, monkeypatch):
    monkeypatch.setattr("push.bus.redis_listener.RETRY_INTERVAL", 0.01)
    layer = PubSubChannelLayer(hosts=[own_redis.url])
    reader = Reader(layer)
    await reader.join("a", "b")
    await in_thread(own_redis.stop)
    with pytest.raises(LAYER_ERRORS):
        await send(layer, "a", "nobody hears this")
    await own_redis.start_beside()
    await eventually(lambda: "regained" in reader.log, 20)
    for group in "ab":
        await send(layer, group, group)
    await eventually(lambda: "b" in reader.log)
    assert reader.log == ["lost", "regained", "a", "b"]


# Many at once


@pytest.fixture
def pipelines(monkeypatch) -> list[int]:
    """How many commands each pipeline had."""
    sizes: list[int] = []
    execute = Pipeline.execute

    async def note(pipeline: Pipeline, *args: Any, **options: Any) -> Any:
        sizes.append(len(pipeline))
        return await execute(pipeline, *args, **options)

    monkeypatch.setattr(Pipeline, "execute", note)
    return sizes


async def test_many_messages_are_sent_in_pipelines_and_in_order(
    pubsub, reader, pipelines, monkeypatch
):
    monkeypatch.setattr(redis_publications, "PIPELINE_MAX", 4)
    await reader.join("a", "b")
    messages = [("ab"[n % 2], {"type": "t", "n": n}) for n in range(10)]
    assert await groups_send(pubsub, messages) == 10
    await eventually(lambda: len(reader.log) == 10)
    assert reader.log == list(range(10))
    assert pipelines == [4, 4, 2]
    await groups_send(pubsub, [])
    assert pipelines == [4, 4, 2]


async def test_concurrent_publications_share_a_pipeline(pubsub, reader, pipelines):
    await reader.join("a")
    await asyncio.gather(*(send(pubsub, "a", n) for n in range(60)))
    await eventually(lambda: len(reader.log) == 60)
    assert reader.log == list(range(60))
    assert pipelines == [1, 59]


async def test_sender_is_told_how_many_receive_its_own_messages(pubsub, reader):
    await reader.join("a")
    sends = [groups_send(pubsub, [(name, {"type": "t", "n": 1})] * 2) for name in "aba"]
    assert await asyncio.gather(*sends) == [2, 0, 2]


async def test_publication_cancelled_while_it_waits_is_not_sent(pubsub, reader):
    await reader.join("a")
    sends = [asyncio.create_task(send(pubsub, "a", n)) for n in range(3)]
    await asyncio.sleep(0)
    sends[1].cancel()
    await asyncio.wait(sends)
    await send(pubsub, "a", "end")
    await eventually(lambda: "end" in reader.log)
    assert reader.log == [0, 2, "end"]


async def test_silent_redis_delays_a_publication_until_its_own_timeout_only():
    async with silent_server() as port:
        layer = PubSubChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], prefix="t")
        for _ in range(2):
            sends = [asyncio.create_task(send(layer, "a", n)) for n in range(5)]
            _, late = await asyncio.wait(sends, timeout=0.1)
            assert len(late) == 5
            for one in late:
                one.cancel()
            await asyncio.wait(sends)
        async with asyncio.timeout(1):  # the abandoned pipelines are not waited for
            await layer.flush()


async def test_a_message_that_cannot_be_written_stops_all_before_any_is_sent(pubsub, reader):
    await reader.join("a")
    with pytest.raises(TypeError):
        await groups_send(pubsub, [("a", {"n": 1}), ("a", {"n": object()})])
    await send(pubsub, "a", 2)
    await eventually(lambda: reader.log)
    assert reader.log == [2]


async def test_who_sends_is_told_that_redis_is_away(closed_port):
    layer = PubSubChannelLayer(hosts=[f"redis://127.0.0.1:{closed_port}/0"])
    with pytest.raises(LAYER_ERRORS):
        await groups_send(layer, [("a", {"n": 1})])


async def test_a_layer_that_can_do_less_does_the_same_one_by_one():
    layer = InProcessChannelLayer()
    channel = await layer.new_channel()
    await groups_add(layer, ["a", "b"], channel)
    await groups_send(layer, [(group, {"n": group}) for group in "abca"])
    assert [(await layer.receive(channel))["n"] for _ in range(3)] == ["a", "b", "a"]
    await groups_discard(layer, ["a"], channel)
    await groups_send(layer, [("a", {"n": 1}), ("b", {"n": 2})])
    assert (await layer.receive(channel))["n"] == 2
    watcher = SimpleNamespace(layer_lost=pytest.fail, layer_regained=pytest.fail)
    watch_gaps(layer, watcher)
    forget_watcher(layer, watcher)
    await reconnect(layer)


@pytest.mark.services
async def test_a_gap_in_two_redis_servers_ends_when_both_are_back(settings):
    layer = PubSubChannelLayer(hosts=[settings.REDIS_URL, settings.REDIS_URL], prefix="two")
    log: list[str] = []
    layer.watch_gaps(watcher_of(log))
    first, second = layer._get_layer()._shards
    first.listener.lost()
    second.listener.lost()
    first.listener.regained()
    assert log == ["lost", "lost"]
    second.listener.regained()
    assert log == ["lost", "lost", "regained"]


@pytest.mark.parametrize("kind", ["in_process", "redis"])
async def test_layer_serves_one_reader_after_another_of_its_loop_left(settings, redis_client, kind):
    layer: Any = InProcessChannelLayer()
    if kind == "redis":
        layer = PubSubChannelLayer(hosts=[settings.REDIS_URL], prefix="test-leave")
    before = len(redis_client.client_list())
    first, second = await layer.new_channel(), await layer.new_channel()
    await groups_add(layer, ["both", "one"], first)
    await groups_add(layer, ["both", "two"], second)
    await leave(layer, ["both", "one"], first)
    await layer.group_send("both", {"type": "x"})
    assert await asyncio.wait_for(layer.receive(second), 10) == {"type": "x"}
    own = layer if kind == "in_process" else layer._get_layer()
    assert first not in own.channels
    assert all(first not in members for members in own.groups.values())
    await leave(layer, ["both", "two"], second)
    assert (own.groups, dict(own.channels)) == ({}, {})
    await eventually(lambda: len(redis_client.client_list()) == before)
