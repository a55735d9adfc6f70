"""The part of a process that holds sessions: its hub, registry and acknowledger, and their care.

There is at most one node in a process. It starts with its first use, because Daphne has no
lifespan events; the command that runs the server stops it.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import lru_cache
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings
from django.db import Error as DatabaseError

from imgo_site.batching import database_threads
from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from offline.models import Message
from offline.pending import Acknowledger, owed
from push import publish
from push.envelope import close_envelope
from push.groups import key_group, node_group, room_group
from push.hub import Hub
from push.layers import LAYER_ERRORS
from push.models import Dedupe
from push.models import Node as NodeRow
from push.registry import Entry, MemoryRegistry, NodeEntry, Registry
from push.session import Outgoing, Session
from push.wire import CloseCode

logger = logging.getLogger(__name__)

TICK = 1.0  # seconds between two rounds of care
EXPIRE_EVERY = 60.0  # seconds between deletions of expired messages
REPLAY_MEMORY = 300.0  # seconds that a live copy of a replayed message may be on its way


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """The registry of this setup: Redis's with `REDIS_URL`, else this process's own."""
    if settings.REDIS_URL:
        from push.redis_registry import RedisRegistry

        return RedisRegistry(settings.REDIS_URL)
    return MemoryRegistry()


class Node:
    """What holds the sessions of this process."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.name = conf.NODE_NAME or f"{socket.gethostname()}:{conf.HTTP_PORT}"
        self.hub = Hub(get_channel_layer(), self.id)
        self.registry = get_registry()
        self.acknowledger = Acknowledger()
        self.acknowledge = self.acknowledger.add
        self.entries: dict[str, Entry] = {}
        self._counter = 0
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Announce the node and begin to receive and to care. Raises what a part raises."""
        publish.use_loop(asyncio.get_running_loop())
        row = await database_threads.run(NodeRow.objects.announce, self.name)
        await self.registry.start(NodeEntry(self.id, self.name, row.pk, time.time()))
        try:
            await self.hub.start()
        except BaseException:
            await self._leave_registry()
            raise
        self.acknowledger.start()
        loop = asyncio.get_running_loop()
        for care, every in (
            (self._close_silent, max(TICK, min(5.0, conf.HEARTBEAT_TIMEOUT / 10))),
            (self._leave_groups, TICK),
            (self._renew, conf.NODE_LEASE / 3),
            (self._expire, EXPIRE_EVERY),
        ):
            self._tasks.append(loop.create_task(_repeat(care, every)))

    async def stop(self) -> None:
        """Close every session with a reconnect code, and leave the registry."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        sessions = list(self.hub.sessions.values())
        for session in sessions:
            session.disconnect(CloseCode.GOING_AWAY)
        drained = [asyncio.ensure_future(session.link.drained()) for session in sessions]
        if drained:
            await asyncio.wait(drained, timeout=5)
        await asyncio.gather(*(self.dismiss(session) for session in sessions))
        await self.hub.stop()
        await self.acknowledger.stop()
        await self._leave_registry()
        publish.use_loop(None)

    async def _leave_registry(self) -> None:
        self.entries.clear()  # whoever is left goes with the node
        try:
            await self.registry.stop()
        except Exception as error:  # noqa: BLE001 - its lease ends by itself
            logger.warning("the node could not leave the registry: %s", error)

    def new_session_id(self) -> str:
        """An id that no other session of any node has."""
        self._counter += 1
        return f"{self.id}-{self._counter}"

    # Sessions

    async def admit(self, session: Session, entry: Entry, rooms: list[str]) -> None:
        """Count a session in and join its groups. Raises `TooManySessions` or `Unavailable`.

        Whatever happens, `dismiss` undoes it.
        """
        if self._is_stopping:
            raise Unavailable("The server is stopping; come back in a moment.")
        evict = conf.SESSION_CAP_POLICY == "close_oldest"
        evicted = await self.registry.add(entry, conf.MAX_SESSIONS_PER_KEY, evict=evict)
        self.entries[session.id] = entry
        for oldest in evicted:
            await self._close_elsewhere(oldest)
        session.rooms.update(rooms)
        groups = [key_group(session.key), *map(room_group, rooms)]
        await self.hub.add(session, groups)
        if rooms:
            await self.registry.join(entry, rooms)

    async def _close_elsewhere(self, entry: Entry) -> None:
        order = close_envelope(node_group(entry.node), [entry.id], CloseCode.REPLACED)
        await publish.send([order])

    async def dismiss(self, session: Session) -> None:
        """Forget a session. Never raises: the registry forgets by itself what it is not told."""
        session.is_closed = True
        groups = [key_group(session.key), *map(room_group, session.rooms)]
        self.hub.remove(session, groups)
        entry = self.entries.pop(session.id, None)
        if entry is not None:
            try:
                await self.registry.remove(entry, session.rooms)
            except Exception as error:  # noqa: BLE001
                logger.warning("a session stays in the registry for a while: %s", error)

    async def join_room(self, session: Session, room: str) -> None:
        """Put a session into a room. Raises `Unavailable`."""
        session.rooms.add(room)
        await self.hub.join(session, room_group(room))
        await self.registry.join(self.entries[session.id], [room])

    async def leave_room(self, session: Session, room: str) -> None:
        """Take a session out of a room."""
        session.rooms.discard(room)
        self.hub.leave(session, room_group(room))
        await self.registry.leave(self.entries[session.id], room)

    def deliver_late(self, session: Session, message: Outgoing) -> None:
        """See `Session.deliver`: send it if nobody of its key has had it."""
        self.hub.background.run(self._deliver_if_owed(session, message))

    async def _deliver_if_owed(self, session: Session, message: Outgoing) -> None:
        pair = (message.id, session.key)
        try:
            is_owed = not self.acknowledger.has(*pair) and await owed.get(pair)
            # It may have been acknowledged while the database was asked.
            if is_owed and not self.acknowledger.has(*pair):
                session.replay(message)
        except DatabaseError as error:
            logger.warning("message %d waits for its key's next session: %s", message.id, error)

    # Care

    async def _close_silent(self) -> None:
        """Close sessions without a sign of life, and those whose identity has expired.

        One sweep over all sessions instead of one timer handle for each.
        """
        oldest = asyncio.get_running_loop().time() - conf.HEARTBEAT_TIMEOUT
        now = time.time()
        for session in list(self.hub.sessions.values()):
            if session.last_seen < oldest:
                session.disconnect(CloseCode.HEARTBEAT_TIMEOUT)
            elif session.expires_at is not None and session.expires_at <= now:
                session.disconnect(CloseCode.EXPIRED)
            elif session.opened < now - REPLAY_MEMORY:
                session.forget_replayed()

    async def _leave_groups(self) -> None:
        await self.hub.leave_empty(conf.GROUP_LINGER)

    async def _renew(self) -> None:
        sessions = self.hub.sessions
        entries = [
            (entry, sessions[name].rooms)
            for name, entry in self.entries.items()
            if name in sessions
        ]
        await self.registry.renew(len(sessions), entries)
        await database_threads.run(NodeRow.objects.announce, self.name)

    async def _expire(self) -> None:
        # In batches: others get their turn at the database in between.
        while await database_threads.run(Message.objects.expire, timedelta(0)):
            pass
        await database_threads.run(Dedupe.objects.forget)


async def _repeat(care: Callable[[], Coroutine[Any, Any, None]], every: float) -> None:
    """Call `care` again and again; a failure is logged and tried again next time."""
    while True:
        await asyncio.sleep(every)
        try:
            await care()
        except (DatabaseError, Unavailable, *LAYER_ERRORS) as error:
            logger.warning("%s: %s; trying again in %g s", care.__name__, error, every)
        except Exception:
            logger.exception("%s failed", care.__name__)


_starting: asyncio.Task[Node] | None = None


async def get_node() -> Node:
    """This process's node, started on first use. Raises what its start raises."""
    global _starting  # noqa: PLW0603 - one node a process is the point
    if _starting is None or (_starting.done() and _starting.exception()):
        _starting = asyncio.get_running_loop().create_task(_start())
    return await asyncio.shield(_starting)


async def _start() -> Node:
    node = Node()
    await node.start()
    return node


async def stop_node() -> None:
    """Stop this process's node, if it was started."""
    global _starting
    task, _starting = _starting, None
    if task is not None and not (task.done() and task.exception()):
        await (await task).stop()


def is_running() -> bool:
    """Whether this process has a node that was started."""
    return _starting is not None and _starting.done() and not _starting.exception()
