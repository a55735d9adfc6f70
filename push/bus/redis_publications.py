"""The publications of one event loop to one Redis: one pipeline at a time.

While Redis answers a pipeline, further publications wait. The next pipeline carries all of them.
With one round trip for each, many concurrent publishers would wait for each other longer than
their timeouts.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeAlias

PIPELINE_MAX = 500  # messages in one pipeline

Messages = Sequence[tuple[str, bytes]]  # (channel, data) pairs
Waiter: TypeAlias = "asyncio.Future[int]"  # its result: receivers of its messages


class Publications:
    """Queue of publications, which keeps their order. `redis`: a `redis.asyncio.Redis`."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._waiting: deque[tuple[Messages, Waiter]] = deque()
        self._under_way: list[tuple[int, Waiter]] = []  # those of `_sending`: (messages, waiter)
        self._sending: asyncio.Task[list[int]] | None = None

    async def send(self, messages: Messages) -> int:
        """Publish messages, and wait until Redis has them. Return their number of receivers.

        A receiver is a connection that is subscribed; it counts once for each message.

        A cancel while they wait removes them from the queue. A cancel while they are sent leaves
        open whether Redis has them. Raises `RedisError`; others' messages in the same pipeline
        fail with it.
        """
        done: Waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, done))
        self._start()
        try:
            return await done
        finally:
            # Without a waiter left, the pipeline breaks its connection: Redis may be silent.
            if self._sending is not None and all(
                waiter.cancelled() for _, waiter in self._under_way
            ):
                self._sending.cancel()

    async def finish(self) -> None:
        """Wait until all is sent or has failed."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    def _start(self) -> None:
        if self._sending is not None:
            return
        messages: list[tuple[str, bytes]] = []
        while self._waiting:
            following, done = self._waiting[0]
            if messages and len(messages) + len(following) > PIPELINE_MAX:
                break
            self._waiting.popleft()
            if not done.cancelled():
                messages += following
                self._under_way.append((len(following), done))
        if messages:
            self._sending = asyncio.get_running_loop().create_task(self._send(messages))
            self._sending.add_done_callback(self._ended)

    async def _send(self, messages: Messages) -> list[int]:
        receivers: list[int] = []
        for start in range(0, len(messages), PIPELINE_MAX):
            pipe = self._redis.pipeline(transaction=False)
            for channel, data in messages[start : start + PIPELINE_MAX]:
                pipe.publish(channel, data)
            receivers += await pipe.execute()
        return receivers

    def _ended(self, sending: asyncio.Task[list[int]]) -> None:
        """Wake the waiters of a pipeline, and start the next one."""
        under_way, self._under_way, self._sending = self._under_way, [], None
        error = None if sending.cancelled() else sending.exception()
        receivers = iter([] if sending.cancelled() or error is not None else sending.result())
        for count, done in under_way:
            reached = sum(islice(receivers, count))
            if done.done():
                continue
            if sending.cancelled():
                done.cancel()
            elif error is not None:
                done.set_exception(error)
                done.exception()  # marks it as retrieved: the waiter may be gone
            else:
                done.set_result(reached)
        self._start()
