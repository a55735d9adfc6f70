"""The connection to one Redis that hears what is published: one owner, one reader, no pool.

Only the reader's task connects, so there is never more than one connection. Redis replies to
SUBSCRIBE and UNSUBSCRIBE in the order in which they were sent, once for each name: a reply is
matched with the oldest command that waits for one, by kind and by name. A new connection
subscribes to all names with one command before anything else.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from push.bus.background_tasks import is_cancelled

logger = logging.getLogger(__name__)

CONFIRM_TIMEOUT = 5.0  # seconds for Redis to confirm a subscription
RETRY_MIN = 0.05  # seconds until a second attempt to connect; each further one takes twice as long
RETRY_INTERVAL = 1.0  # seconds between two attempts, at most
STEADY_AFTER = 1.0  # seconds that a connection must have lasted for the next to be made at once

SUBSCRIBE, UNSUBSCRIBE, MESSAGE = b"subscribe", b"unsubscribe", b"message"


class _Command:
    """A SUBSCRIBE or UNSUBSCRIBE that Redis has not confirmed for all of its names."""

    __slots__ = ("_left", "done", "kind", "names")

    def __init__(self, kind: bytes, names: Sequence[bytes]) -> None:
        self.kind = kind
        self.names = names
        self._left = deque(names)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def confirm(self, kind: bytes, name: bytes) -> bool:
        """Take one reply; return whether it is the one that was due."""
        if kind != self.kind or not self._left or name != self._left[0]:
            return False
        self._left.popleft()
        if not self._left:
            self.settle()
        return True

    @property
    def is_confirmed(self) -> bool:
        """Whether Redis has replied for every name."""
        return not self._left

    def settle(self, error: Exception | None = None) -> None:
        """Let go of whoever waits, if somebody still does."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # retrieved, also when nobody waits any more


class Listener:
    """Keeps subscriptions on a connection, which is made again whenever it breaks.

    `connection`: makes an unconnected `redis.asyncio.Connection`. `received(name, data)` is called
    for each message. `lost()` is called when a connection breaks that had subscriptions, before
    anything of the next one comes in; `regained()` when the next one has all of them again.
    """

    def __init__(
        self, connection: Callable[[], Any], received: Callable[[bytes, bytes], None]
    ) -> None:
        self._make = connection
        self._received = received
        self.lost: Callable[[], None] = _nothing
        self.regained: Callable[[], None] = _nothing
        self._names: dict[bytes, None] = {}  # subscribed to, or about to be
        self._waiting: list[_Command] = []  # subscriptions that somebody waits for
        self._expected: deque[_Command] = deque()  # sent through this connection
        self._again: _Command | None = None  # the one that renews all subscriptions
        self._connection: Any = None
        self._hears = False  # this connection has all subscriptions
        self._since = math.inf  # monotonic seconds, from which it does
        self._in_gap = False
        self._changing = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None

    async def subscribe(self, names: Iterable[bytes]) -> None:
        """Subscribe to names, and wait until Redis has confirmed it.

        Raises `TimeoutError` after `CONFIRM_TIMEOUT` seconds, what Redis refuses it with, and
        what a connection cannot be made for.
        """
        async with self._changing:
            fresh = [name for name in names if name not in self._names]
            if not fresh:
                return
            command = _Command(SUBSCRIBE, fresh)
            self._names.update(dict.fromkeys(fresh))
            self._waiting.append(command)
            self._start()
            try:
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    await self._send(command)
                    await command.done
            except BaseException:
                # Redis may still subscribe; what comes for these names has no receiver here.
                for name in fresh:
                    self._names.pop(name, None)
                raise
            finally:
                self._waiting.remove(command)

    async def unsubscribe(self, names: Iterable[bytes]) -> None:
        """Give subscriptions up. Raises what Redis raises; they are given up all the same."""
        async with self._changing:
            there = [name for name in names if name in self._names]
            for name in there:
                del self._names[name]
            if there:
                await self._send(_Command(UNSUBSCRIBE, there))

    async def reconnect(self) -> None:
        """Break the connection; the reader makes it again."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        """End the reader and the connection."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
        self._names.clear()
        self._hears = self._in_gap = False

    def _start(self) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._run())

    async def _send(self, command: _Command) -> None:
        """Send a command; without a connection, the next one makes up for it."""
        async with self._sending:
            connection = self._connection
            if connection is not None:
                self._expected.append(command)
                await connection.send_command(
                    command.kind.decode().upper(), *command.names, check_health=False
                )

    # The reader

    async def _run(self) -> None:
        loop, delay = asyncio.get_running_loop(), 0.0
        while not is_cancelled():
            self._since = math.inf
            try:
                await self._connect()
                while True:
                    await self._read_one()
            except Exception as error:  # noqa: BLE001 - the reader must outlive any of them
                if not delay or delay >= RETRY_INTERVAL:
                    logger.warning("the connection to Redis failed, connecting again: %s", error)
                await self._broken(error)
            if loop.time() - self._since >= STEADY_AFTER:
                delay = 0.0
            await asyncio.sleep(delay)
            delay = min(RETRY_INTERVAL, 2 * delay or RETRY_MIN)

    async def _connect(self) -> None:
        connection = self._make()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        async with self._sending:
            self._connection = connection
            self._expected.clear()
            # Those that wait are among the names: this confirms them too.
            self._again = _Command(SUBSCRIBE, list(self._names))
            if self._names:
                self._expected.append(self._again)
                await connection.send_command("SUBSCRIBE", *self._names, check_health=False)
                return
        self._is_complete()

    def _is_complete(self) -> None:
        self._hears, self._since = True, asyncio.get_running_loop().time()
        if self._in_gap:
            self._in_gap = False
            self.regained()

    async def _read_one(self) -> None:
        try:
            reply = await self._connection.read_response(
                timeout=math.inf, disconnect_on_error=False, push_request=True
            )
        except ResponseError as error:
            self._refused(error)
            return
        kind, name = bytes(reply[0]), bytes(reply[1])
        if kind == MESSAGE:
            self._received(name, reply[2])
        else:
            self._confirmed(kind, name)

    def _confirmed(self, kind: bytes, name: bytes) -> None:
        if not self._expected or not self._expected[0].confirm(kind, name):
            raise RedisConnectionError(f"Redis sent {kind!r} for {name!r} out of turn.")
        command = self._expected[0]
        if not command.is_confirmed:
            return
        self._expected.popleft()
        if command is self._again:
            renewed = set(command.names)
            for waiting in self._waiting:
                if renewed.issuperset(waiting.names):
                    waiting.settle()
            self._is_complete()

    def _refused(self, error: ResponseError) -> None:
        """Redis refuses a command as a whole, with one reply."""
        command = self._expected.popleft() if self._expected else None
        if command is None or command is self._again:
            raise error
        command.settle(error)

    async def _broken(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if connection is None:  # it could not be made: who joins need not wait for the next one
            for command in self._waiting:
                command.settle(error)
        else:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
        if self._hears and self._names:
            self._in_gap = True
            self.lost()
        self._hears = False


def _nothing() -> None:
    pass
