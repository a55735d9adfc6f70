"""A psycopg connection whose waits are bounded, and the pool's check of an idle one."""

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg_pool import PoolTimeout

RV = TypeVar("RV")

CANCEL_TIMEOUT = 1.0  # seconds for the request that cancels an abandoned statement
IDLE_MAX = 20.0  # seconds without traffic; an older connection is asked before it is used
_WITHOUT_STATE = (psycopg.OperationalError, psycopg.InterfaceError)
CHECK_TIMEOUT = 2.0  # seconds for the answer to that question


class NoAnswer(psycopg.OperationalError):
    """Postgres did not answer a statement in time. The connection is closed."""


class Connection(psycopg.Connection[Any]):
    """A connection that gives up on a silent server, and leaves its pool when it is read-only.

    `limit`: seconds that each statement may take; None: no limit. A statement beyond it is
    cancelled on the server, so that it does not go on waiting for a lock there.

    `server`: its system identifier and timeline, after a transaction that wrote has read them.
    They hold as long as the connection: a server that takes writes is on one timeline until it is
    started anew, which ends its connections. Behind a pooler a connection may come to lead to
    another server; then the outcome of a lost commit is unknown.
    """

    limit: float | None = CHECK_TIMEOUT  # until a thread takes it out of the pool
    last_used = 0.0  # monotonic seconds
    server: tuple[int, str] | None = None
    _cancels = True
    _good: ClassVar[dict[str, int]] = {}  # for hosts and ports: the place of the one that led on

    @classmethod
    def connect(cls, conninfo: str = "", **known: Any) -> Self:
        """Connect, of several hosts first to the one that was good the last time.

        Without that a silent host costs each new connection its `connect_timeout`.
        """
        hosts = str(known.get("host") or "").split(",")
        ports = str(known.get("port") or "").split(",")
        if len(hosts) == 1:
            return super().connect(conninfo, **known)
        ports = ports * len(hosts) if len(ports) == 1 else ports
        name = f"{hosts} {ports}"
        first = cls._good.get(name, 0)
        order = [first, *(n for n in range(len(hosts)) if n != first)]
        known["host"] = ",".join(hosts[n] for n in order)
        known["port"] = ",".join(ports[n] for n in order)
        connection = super().connect(conninfo, **known)
        reached = (connection.info.host, str(connection.info.port))
        good = [n for n in order if (hosts[n], ports[n] or "5432") == reached]
        cls._good[name] = good[0] if good else 0
        return connection

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Run a statement. Raises `NoAnswer` after `limit` seconds."""
        limit = self.limit if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit)
        except errors._WaitTimeout:
            self._abandon()
            raise NoAnswer(f"Postgres did not answer within {limit:g} seconds") from None
        except errors.ReadOnlySqlTransaction:
            # After a failover: the server that this connection leads to is a standby now.
            self._drop_pool()
            raise
        finally:
            self.last_used = time.monotonic()

    def commit(self) -> None:
        """Commit. One that does not end in time is not cancelled.

        A commit that is cancelled while it waits for a standby is made without the standby.
        """
        self._cancels = False
        try:
            super().commit()
        finally:
            self._cancels = True

    def _abandon(self) -> None:
        if self._cancels:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_TIMEOUT)
        self.close()
        # A link that swallows what is sent swallows that of the pool's other connections too.
        self._drop_pool()

    def _drop_pool(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and not pool.closed:
            pool.drain()

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Give each statement inside so many seconds."""
        before, self.limit = self.limit, seconds
        try:
            yield
        finally:
            self.limit = before


def check(connection: Connection) -> None:
    """Raise `psycopg.Error` if a pooled connection is not usable.

    A thread that ended inside `transaction.atomic` has left it without autocommit: each statement,
    this check's too, would begin a transaction, and who is given it then could not use it.

    A server that closed an idle connection has written to it, which costs one poll to see. Only
    after a while without traffic the server is asked: a firewall may have forgotten the link.
    """
    if not connection.autocommit:
        connection.autocommit = True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    # Readable without a question: a notice, or the end.
    if not poll.poll(0) and time.monotonic() - connection.last_used < IDLE_MAX:
        return
    try:
        with connection.limited(CHECK_TIMEOUT):
            connection.execute("")
    except psycopg.Error:
        connection.close()
        # Most likely the others are cut too. The pool would find one a second.
        connection._drop_pool()
        raise


def is_cut(error: BaseException | None) -> bool:
    """Whether an error means that the connection has ended, or leads to a standby."""
    if not isinstance(error, psycopg.Error) or isinstance(error, NoAnswer | PoolTimeout):
        return False
    if error.sqlstate is None and not isinstance(error, _WITHOUT_STATE):
        return False
    state = error.sqlstate or ""
    # Without a state it is not the server that speaks. 08: connection; 57P: the server ends.
    return not state or state[:2] == "08" or state[:3] == "57P" or state == "25006"
