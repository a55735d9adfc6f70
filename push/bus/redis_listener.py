"""The subscribing connection to one Redis: one owner, one reader, no pool.

Only the reader's task connects, so there is never more than one connection. Redis replies to
SUBSCRIBE and UNSUBSCRIBE in the order of the commands, once for each name. So each reply must
match the oldest unconfirmed command, by kind and by name. A new connection first subscribes to
all names with one command.
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
RETRY_MIN = 0.05  # seconds between the first two attempts to connect; then twice as long each time
RETRY_INTERVAL = 1.0  # seconds between two attempts, at most; 0 after one that took this long
STEADY_AFTER = 1.0  # seconds; after a connection that lasted so long, the next attempt is immediate

SUBSCRIBE, UNSUBSCRIBE, MESSAGE = b"subscribe", b"unsubscribe", b"message"


class _Command:
    """A SUBSCRIBE or UNSUBSCRIBE command; `done` is set when Redis has confirmed every name."""

    __slots__ = ("_unconfirmed", "done", "kind", "names")

    def __init__(self, kind: bytes, names: Sequence[bytes]) -> None:
        self.kind = kind
        self.names = names
        self._unconfirmed = deque(names)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def confirm(self, kind: bytes, name: bytes) -> bool:
        """Record one reply; return False if it is not the reply that this command expects."""
        if kind != self.kind or not self._unconfirmed or name != self._unconfirmed[0]:
            return False
        self._unconfirmed.popleft()
        if not self._unconfirmed:
            self.settle()
        return True

    @property
    def is_confirmed(self) -> bool:
        """Return whether Redis has replied for every name."""
        return not self._unconfirmed

    def settle(self, error: Exception | None = None) -> None:
        """Wake the waiter of `done`, with `error` if given. Does nothing the second time."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # marks it as retrieved: the waiter may be gone


class Listener:
    """Set of subscriptions on one connection, which is renewed whenever it breaks.

    A gap begins when a connection with confirmed subscriptions breaks. It ends when a new
    connection has all subscriptions confirmed. Messages published during a gap are missed.

    `connection`: returns an unconnected `redis.asyncio.Connection`.
    `received(name, data)`: called for each message.
    `lost()`: called when a gap begins, before any message of the next connection.
    `regained()`: called when the gap ends.

    `_changing` serialises subscribe and unsubscribe calls. `_sending` keeps the order of
    `_expected` equal to the order of commands on the connection.
    """

    def __init__(
        self, connection: Callable[[], Any], received: Callable[[bytes, bytes], None]
    ) -> None:
        self._make = connection
        self._received = received
        self.lost: Callable[[], None] = _nothing
        self.regained: Callable[[], None] = _nothing
        self._names: dict[bytes, None] = {}  # subscribed to, or about to be
        self._waiting: list[_Command] = []  # SUBSCRIBE commands with a waiter
        self._expected: deque[_Command] = deque()  # sent through this connection, unconfirmed
        self._renewal: _Command | None = None  # SUBSCRIBE to all names on a new connection
        self._connection: Any = None
        self._is_subscribed = False  # this connection has all subscriptions
        self._subscribed_at = math.inf  # loop time of that, seconds
        self._in_gap = False
        self._changing = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None

    async def subscribe(self, names: Iterable[bytes]) -> None:
        """Subscribe to names, and wait until Redis has confirmed it.

        Names that are subscribed to already are skipped. After an error none of the new names
        stays subscribed.

        Raises `TimeoutError` after `CONFIRM_TIMEOUT` seconds, `ResponseError` if Redis refuses
        the command, and `RedisError` or `OSError` if no connection can be made.
        """
        async with self._changing:
            new_names = [name for name in names if name not in self._names]
            if not new_names:
                return
            command = _Command(SUBSCRIBE, new_names)
            self._names.update(dict.fromkeys(new_names))
            self._waiting.append(command)
            self._start()
            try:
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    await self._send(command)
                    await command.done
            except BaseException:
                # Redis may still subscribe; messages for these names have no receiver here.
                for name in new_names:
                    self._names.pop(name, None)
                raise
            finally:
                self._waiting.remove(command)

    async def unsubscribe(self, names: Iterable[bytes]) -> None:
        """Unsubscribe from names, without waiting for Redis to confirm it.

        Raises `RedisError` or `OSError`. The names are dropped even then.
        """
        async with self._changing:
            subscribed = [name for name in names if name in self._names]
            for name in subscribed:
                del self._names[name]
            if subscribed:
                await self._send(_Command(UNSUBSCRIBE, subscribed))

    @property
    def address(self) -> tuple[str, int] | None:
        """Return host and port of the connection; None without one, or at a socket's path."""
        host = getattr(self._connection, "host", None)
        return None if host is None else (host, self._connection.port)

    async def reconnect(self) -> None:
        """Break the connection; the reader connects again."""
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
        self._is_subscribed = self._in_gap = False

    def _start(self) -> None:
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._run())

    async def _send(self, command: _Command) -> None:
        """Send a command, or nothing without a connection: the next one subscribes to all names.

        Raises `RedisError` or `OSError`, also if another task closes the connection meanwhile.
        """
        async with self._sending:
            connection = self._connection
            if connection is None:
                return
            self._expected.append(command)
            name = command.kind.decode().upper()
            try:
                await connection.send_command(name, *command.names, check_health=False)
            except AttributeError as error:
                # redis-py writes in a task of its own, and by then `disconnect` may have removed
                # the connection's writer.
                raise RedisConnectionError("The connection was closed.") from error

    # The reader

    async def _run(self) -> None:
        loop, delay = asyncio.get_running_loop(), 0.0
        while not is_cancelled():
            began = loop.time()
            self._subscribed_at = math.inf
            try:
                await self._connect()
                if is_cancelled():  # swallowed while it connected
                    return
                while True:
                    await self._read_one()
            except Exception as error:  # noqa: BLE001 - the reader must outlive any of them
                if not delay or delay >= RETRY_INTERVAL:
                    logger.warning("the connection to Redis failed, connecting again: %s", error)
                await self._broken(error)
            if loop.time() - self._subscribed_at >= STEADY_AFTER:
                delay = 0.0
            # A silent Redis answers the attempt under way as soon as it is back.
            was_slow = loop.time() - began >= RETRY_INTERVAL
            await asyncio.sleep(0.0 if was_slow else delay)
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
            # The names of waiting commands are among these, so this confirms them too.
            self._renewal = _Command(SUBSCRIBE, list(self._names))
            if self._names:
                self._expected.append(self._renewal)
                await connection.send_command("SUBSCRIBE", *self._names, check_health=False)
                return
        self._record_subscribed()

    def _record_subscribed(self) -> None:
        self._is_subscribed, self._subscribed_at = True, asyncio.get_running_loop().time()
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
        if command is self._renewal:
            renewed = set(command.names)
            for waiting in self._waiting:
                if renewed.issuperset(waiting.names):
                    waiting.settle()
            self._record_subscribed()

    def _refused(self, error: ResponseError) -> None:
        """Settle the oldest command with `error`: Redis refuses a command with one reply.

        Raises `error` if that command renews all subscriptions, or if there is none.
        """
        command = self._expected.popleft() if self._expected else None
        if command is None or command is self._renewal:
            raise error
        command.settle(error)

    async def _broken(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if connection is None:  # the attempt failed: waiters get the error at once
            for command in self._waiting:
                command.settle(error)
        else:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
        if self._is_subscribed and self._names:
            self._in_gap = True
            self.lost()
        self._is_subscribed = False


def _nothing() -> None:
    pass
