"""The listener matches Redis's replies with what it sent, and connects again without delay."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from push.bus import redis_listener as module
from push.bus.redis_listener import Listener
from tests import eventually


class Redis:
    """Says only what the test has it say; each connection to it is a `FakeConnection`."""

    def __init__(self) -> None:
        self.connections: list[FakeConnection] = []
        self.refuses = False

    def make(self) -> "FakeConnection":
        self.connections.append(FakeConnection(self))
        return self.connections[-1]

    @property
    def now(self) -> "FakeConnection":
        return self.connections[-1]


class FakeConnection:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.sent: list[tuple[str, ...]] = []
        self._replies: asyncio.Queue[Any] = asyncio.Queue()

    async def connect(self) -> None:
        if self._redis.refuses:
            raise RedisConnectionError("refused")

    async def disconnect(self, nowait: bool = False) -> None:
        self.breaks()

    async def send_command(self, *words: Any, check_health: bool) -> None:
        self.sent.append((words[0], *(name.decode() for name in words[1:])))

    async def read_response(self, **_: Any) -> Any:
        reply = await self._replies.get()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def replies(self, kind: str, *names: str) -> None:
        for name in names:
            self._replies.put_nowait([kind.encode(), name.encode(), 1])

    def breaks(self, error: Exception | None = None) -> None:
        self._replies.put_nowait(error or RedisConnectionError("closed"))


@pytest.fixture
def redis() -> Redis:
    return Redis()


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
async def listener(redis: Redis, log: list[str], monkeypatch) -> AsyncIterator[Listener]:
    monkeypatch.setattr(module, "STEADY_AFTER", 0.0)
    found = Listener(redis.make, lambda name, data: log.append(name.decode()))
    found.lost, found.regained = lambda: log.append("lost"), lambda: log.append("regained")
    yield found
    await found.close()


async def subscribed(listener: Listener, redis: Redis, *names: str) -> None:
    joining = asyncio.create_task(listener.subscribe([name.encode() for name in names]))
    await eventually(lambda: redis.connections and ("SUBSCRIBE", *names) in redis.now.sent)
    redis.now.replies("subscribe", *names)
    await joining


async def turns() -> None:
    """Let every task run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_unsubscribe_reply_does_not_confirm_a_later_join(listener, redis):
    await subscribed(listener, redis, "a")
    await listener.unsubscribe([b"a"])
    joining = asyncio.create_task(listener.subscribe([b"a"]))
    await eventually(lambda: len(redis.now.sent) == 3)
    redis.now.replies("unsubscribe", "a")
    await turns()
    assert not joining.done()
    redis.now.replies("subscribe", "a")
    await joining


async def test_a_join_is_confirmed_when_each_of_its_names_is(listener, redis):
    await subscribed(listener, redis, "a")
    joining = asyncio.create_task(listener.subscribe([b"b", b"c"]))
    await eventually(lambda: len(redis.now.sent) == 2)
    redis.now.replies("subscribe", "b")
    await turns()
    assert not joining.done()
    redis.now.replies("subscribe", "c")
    await joining


async def test_a_reply_out_of_turn_makes_a_new_connection(listener, redis, log):
    await subscribed(listener, redis, "a")
    redis.now.replies("subscribe", "x")
    await eventually(lambda: len(redis.connections) == 2)
    await eventually(lambda: redis.now.sent == [("SUBSCRIBE", "a")])
    redis.now.replies("subscribe", "a")
    await eventually(lambda: log == ["lost", "regained"])


async def test_a_break_is_told_at_once_and_a_gap_ends_with_the_last_name(listener, redis, log):
    await subscribed(listener, redis, "a", "b")
    redis.now.breaks()
    await eventually(lambda: log == ["lost"])
    await eventually(lambda: len(redis.connections) == 2 and redis.now.sent)
    redis.now.replies("subscribe", "a")
    redis.now.replies("message", "a")
    await eventually(lambda: log == ["lost", "a"])
    redis.now.replies("subscribe", "b")
    await eventually(lambda: log == ["lost", "a", "regained"])


async def test_a_break_while_joining_is_made_up_for_by_the_next_one(listener, redis, log):
    await subscribed(listener, redis, "a")
    joining = asyncio.create_task(listener.subscribe([b"b"]))
    await eventually(lambda: len(redis.now.sent) == 2)
    redis.now.breaks()
    await eventually(lambda: len(redis.connections) == 2)
    await eventually(lambda: redis.now.sent == [("SUBSCRIBE", "a", "b")])
    redis.now.replies("subscribe", "a")
    await turns()
    assert not joining.done()
    redis.now.replies("subscribe", "b")
    await joining
    assert log == ["lost", "regained"]


async def test_a_break_during_a_gap_belongs_to_the_same_gap(listener, redis, log):
    await subscribed(listener, redis, "a")
    for count in (2, 3):
        redis.now.breaks()
        await eventually(lambda n=count: len(redis.connections) == n and redis.now.sent)
    redis.now.replies("subscribe", "a")
    await eventually(lambda: log == ["lost", "regained"])


async def test_the_first_attempt_after_a_break_does_not_wait(listener, redis, log, monkeypatch):
    monkeypatch.setattr(module, "RETRY_MIN", 3600.0)
    monkeypatch.setattr(module, "RETRY_INTERVAL", 3600.0)
    await subscribed(listener, redis, "a")
    redis.now.breaks()
    await eventually(lambda: len(redis.connections) == 2 and redis.now.sent)


async def test_further_attempts_wait_twice_as_long_each(listener, redis, monkeypatch):
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    redis.refuses = True
    monkeypatch.setattr(module.asyncio, "sleep", note)
    with pytest.raises(RedisConnectionError, match="refused"):
        await listener.subscribe([b"a"])
    while len(pauses) < 8:
        await sleep(0)
    assert pauses[:8] == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


async def test_an_attempt_that_takes_long_is_repeated_at_once(listener, redis, monkeypatch):
    """While Redis is silent, an attempt is under way at any moment."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async def connect_slowly(_: FakeConnection) -> None:
        await sleep(2 * module.RETRY_INTERVAL)
        raise RedisConnectionError("silent")

    monkeypatch.setattr(module, "RETRY_MIN", 0.01)
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.02)
    monkeypatch.setattr(module.asyncio, "sleep", note)
    monkeypatch.setattr(FakeConnection, "connect", connect_slowly)
    with pytest.raises(RedisConnectionError):
        await listener.subscribe([b"a"])
    while len(waits) < 5:
        await sleep(0.01)
    assert waits == [0.0] * len(waits)


async def test_a_refused_join_fails_alone(listener, redis):
    await subscribed(listener, redis, "a")
    joining = asyncio.create_task(listener.subscribe([b"secret"]))
    await eventually(lambda: len(redis.now.sent) == 2)
    redis.now.breaks(NoPermissionError("no access to this channel"))
    with pytest.raises(NoPermissionError):
        await joining
    await subscribed(listener, redis, "b")
    assert len(redis.connections) == 1


async def test_a_join_without_a_reply_fails_and_can_be_repeated(listener, redis, monkeypatch):
    await subscribed(listener, redis, "a")
    monkeypatch.setattr(module, "CONFIRM_TIMEOUT", 0.01)
    with pytest.raises(TimeoutError):
        await listener.subscribe([b"b"])
    monkeypatch.setattr(module, "CONFIRM_TIMEOUT", 5.0)
    redis.now.replies("subscribe", "b")  # late
    again = asyncio.create_task(listener.subscribe([b"b"]))
    await eventually(lambda: len(redis.now.sent) == 3)
    await turns()
    assert not again.done()
    redis.now.replies("subscribe", "b")
    await again
