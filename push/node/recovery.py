"""What a node does when messages may have passed it by: read what is pending for its own keys.

Like a connecting session, only for all sessions of a key at once: keep back what comes in, read,
deliver what was read and what was kept back in one order, that of their ids, then let go.

Why nothing is sent behind a later one. At the moment of the reading, every message of a key that
is committed is one of these: pending, and read; had by a session on another node since the gap
began, and read; had before the gap began, so that this node has had it too, or it is older than
the sessions here; or published on the connection that this node hears now. The last are kept back,
and an audit, which has no gap to read from, waits for an echo before it delivers: by then all
that was published before the reading has come in. What has been had elsewhere is for those
sessions only that were open by then; the others owe it to nobody, and it would come behind what
they have had since.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from offline import replay
from offline.node_io import Acknowledger
from offline.values import Page, PendingMessage
from push.bus.groups import key_group
from push.bus.layers import LAYER_ERRORS
from push.metrics import definitions as metrics
from push.node.hub import Hub
from push.session.session import Outgoing, Session

logger = logging.getLogger(__name__)

SLICE = 250  # keys of one query
RETRY_INTERVAL = 1.0  # seconds until a database that failed is asked again
ECHO_TIMEOUT = 1.0  # seconds that an audit waits for what is under way


class Found(NamedTuple):
    """What one query found, and when it was asked (monotonic seconds)."""

    pages: dict[Page, list[PendingMessage]]
    asked: float


async def recover(
    hub: Hub, acknowledger: Acknowledger, keys: Sequence[str], since: float | None = None
) -> int:
    """Deliver what is pending for keys that have sessions here; returns how many that were.

    `since`: the time (monotonic seconds) from which this node may have heard nothing. Then also
    what sessions of the same keys on other nodes have had from that time on, and while the
    database is unavailable, it waits: what came later must not be delivered before that.

    Without it, it is an audit. What is young is left to the way that it is on, keys that are held
    to their owner, and what the database raises is raised.
    """
    count = 0
    for start in range(0, len(keys), SLICE):
        some = list(keys[start : start + SLICE])
        if since is None:
            some = [key for key in some if not hub.holds.has(key_group(key))]
        hold = hub.holds.hold(map(key_group, some))
        try:
            if since is None:
                count += await _audit(hub, acknowledger, some)
            else:
                count += await _make_up(hub, acknowledger, some, since)
        finally:
            hub.holds.release(hold)
    if count:
        metrics.RECOVERED.inc(count)
        logger.info("%d messages that had passed by were delivered", count)
    return count


async def _make_up(hub: Hub, acknowledger: Acknowledger, keys: Sequence[str], since: float) -> int:
    """After a gap: deliver all that there is for keys."""
    count = 0
    for key in keys:
        for session in hub.groups.get(key_group(key), ()):
            # What it has read may be from before the gap; it reads at its client's pace.
            session.is_behind = session.is_connecting
    wanted: list[Page] = [(key, 0) for key in keys]
    while wanted:
        found = await _read_until(wanted, since)
        count += _deliver_all(hub, acknowledger, found)
        wanted = _further(found)
        if not wanted:
            wanted = [(key, 0) for key in keys if hub.holds.take_overflow(key_group(key))]
    return count


async def _audit(hub: Hub, acknowledger: Acknowledger, keys: Sequence[str]) -> int:
    """Deliver what has been pending for a while, once all that is under way has come in."""
    count, gaps = 0, hub.gaps
    wanted: list[Page] = [(key, 0) for key in keys]
    while wanted:
        found = await session_threads.run(_read, wanted, None)
        if not any(found.pages.values()):
            return count
        if not await _has_come_in(hub) or hub.gaps != gaps:
            return count  # the next audit looks again
        count += _deliver_all(hub, acknowledger, found)
        wanted = _further(found)
    return count


async def _has_come_in(hub: Hub) -> bool:
    try:
        return await hub.echo(ECHO_TIMEOUT)
    except LAYER_ERRORS:
        return False


def _further(found: Found) -> list[Page]:
    """The pages behind those that were full."""
    size = conf.REPLAY_PAGE
    return [(key, page[-1].id) for (key, _), page in found.pages.items() if len(page) == size]


def _deliver_all(hub: Hub, acknowledger: Acknowledger, found: Found) -> int:
    count = 0
    for (key, _), page in found.pages.items():
        group = key_group(key)
        for message in page:
            sessions = _due(hub, acknowledger, key, message, found.asked)
            if sessions:
                hub.holds.deliver_below(group, message.id)
                count += _deliver(hub, group, key, message, sessions)
    return count


def _due(
    hub: Hub, acknowledger: Acknowledger, key: str, found: PendingMessage, asked: float
) -> list[Session]:
    """The open sessions of a key that have not had a message and should have it."""
    group = key_group(key)
    if hub.delivered.has(found.id, group):
        return []
    some = [
        session
        for session in hub.groups.get(group, ())
        if not session.is_connecting
        and session.takes(found.op)
        and not hub.replayed.has(found.id, session.id)
        and not session.awaits(found.id)
        and (found.had is None or session.joined_before(asked - found.had, found.had_xmin))
    ]
    if len(some) == 1 and acknowledger.has(found.id, key):
        return []  # its own acknowledgement, which is not written yet
    return some


def _deliver(
    hub: Hub, group: str, key: str, found: PendingMessage, sessions: Sequence[Session]
) -> bool:
    if not hub.delivered.add(found.id, group):
        return False  # it was among those that were kept back
    message = Outgoing(found.id, found.op, found.body, found.is_json, key)
    for session in sessions:
        session.deliver(message)
    return True


async def _read_until(wanted: list[Page], since: float) -> Found:
    """Read what is missed, and try again while the database is unavailable."""
    while True:
        try:
            return await session_threads.run(_read, wanted, since)
        except DatabaseError as error:
            logger.warning("what is pending cannot be read, trying again: %s", error)
            await asyncio.sleep(RETRY_INTERVAL)


def _read(wanted: list[Page], since: float | None) -> Found:
    asked = time.monotonic()  # the event loop's clock
    age = 0.0 if since is None else max(0.0, asked - since)
    return Found(replay.read_missed(wanted, conf.REPLAY_PAGE, age), asked)
