"""Writes which keys are online at one node, and removes those of nodes that are dead."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from django.db import Error as DatabaseError

from imgo_site.database_threads import CLUSTER_PATIENCE, OneDatabaseThread, cluster_threads
from push.metrics import definitions as metrics
from push.online import store
from push.online.lease_watch import LeaseWatch
from push.online.local_keys import LocalKeys
from push.online.store import BATCH, LeaseLost
from push.session.session_records import SessionEvent

logger = logging.getLogger(__name__)

WRITE_EVERY = 0.5  # seconds between two writes
RETRY_AFTER = 1.0  # seconds until a failed write is repeated
RESEND_EVERY = 5.0  # seconds between two searches for events that were dropped
THREAD_TIMEOUT = 1.0  # seconds that `stop` waits for the thread

Openings = Callable[[], Iterable[tuple[str, SessionEvent]]]


class OnlineKeys:
    """Online keys of one node, for one event loop.

    `name`: the node's.
    `openings`: returns (key, opening) of all open sessions of the node.
    """

    def __init__(self, name: str, openings: Openings) -> None:
        self._name = name
        self._openings = openings
        self._keys = LocalKeys()
        self._lease: str | None = None  # the first write acquires one
        self._left: list[str] = []  # own leases that end when all keys are inserted again
        self._retry_at = 0.0  # loop time
        self._watch = LeaseWatch()
        # Of its own: receivers of signals may be slow.
        self._threads = OneDatabaseThread("imgo-online", CLUSTER_PATIENCE)

    def opened(self, key: str, event: SessionEvent) -> None:
        """Record the opening of a session."""
        self._keys.opened(key, event)

    def closed(self, key: str, event: SessionEvent) -> None:
        """Record the end of a session."""
        self._keys.closed(key, event, asyncio.get_running_loop().time())

    async def write(self) -> None:
        """Write what has changed. Raises `DatabaseError`; it is written later then."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            return
        try:
            await self._write(loop.time())
        except LeaseLost:
            self._lose_lease()
        except DatabaseError:
            self._retry_at = loop.time() + RETRY_AFTER
            raise
        finally:
            metrics.KEY_EVENTS_WAITING.set(self._keys.unwritten)

    async def _write(self, now: float) -> None:
        if self._lease is None:
            self._lease = await self._threads.run(store.acquire, self._name)
            self._keys.insert_all_again(dict(self._openings()), now)
        while new := self._keys.take_new(BATCH):
            await self._try(store.add, new, self._keys.put_back_new, new)
        if self._left:
            await self._threads.run(store.end, list(self._left))
            self._left.clear()
        while gone := self._keys.take_gone(BATCH, now):
            events = {key: closing.event for key, closing in gone.items()}
            await self._try(store.remove, events, self._keys.put_back_gone, gone)

    async def _try(
        self,
        change: Callable[[str, dict[str, SessionEvent]], None],
        events: dict[str, SessionEvent],
        put_back: Callable[[Any], None],
        taken: Any,
    ) -> None:
        """Make a change in the database; if it fails, put back what was taken for it."""
        try:
            if self._lease is None:  # `beat` has lost it
                raise LeaseLost
            await self._threads.run(change, self._lease, events)
        except BaseException:
            put_back(taken)
            raise

    async def beat(self) -> None:
        """Renew the lease. Raises `DatabaseError`.

        Not on the thread of the writes, which may wait for locks.
        """
        lease = self._lease
        if lease is not None:
            try:
                await cluster_threads.run(store.beat, lease)
            except LeaseLost:
                if self._lease == lease:
                    self._lose_lease()

    def _lose_lease(self) -> None:
        if self._lease is not None:
            logger.warning("node %s writes which keys are online once more", self._name)
            metrics.KEY_LEASES_LOST.inc()
            self._left.append(self._lease)
            self._lease = None

    async def reap(self) -> None:
        """Remove the keys of nodes that are dead or stopped. Raises `DatabaseError`."""
        leases = await self._threads.run(store.leases)
        now = asyncio.get_running_loop().time()
        for lease in self._watch.silent(leases, self._lease, now):
            if await self._threads.run(store.condemn, lease):
                logger.info("the keys of lease %s are removed: its node is gone", lease.id)
        for lease in leases:
            if lease.is_ended and lease.id not in self._left:
                while await self._threads.run(store.reap, lease.id):
                    pass

    async def resend(self) -> None:
        """Store last events again that were dropped. Raises `DatabaseError`."""
        while await self._threads.run(store.resend):
            pass

    async def stop(self) -> None:
        """Write what is new, and leave the lease: other nodes remove the keys after the grace.

        Raises `DatabaseError`; the lease expires then.
        """
        try:
            self._retry_at = 0.0
            await self.write()
            if self._lease is not None:
                await self._threads.run(store.stop, self._lease)
        finally:
            await asyncio.to_thread(self._threads.close, THREAD_TIMEOUT)
