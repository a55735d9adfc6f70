"""What a node does when messages may have passed it by: read what is pending for its own keys.

Like a connecting session, only for all sessions of a key at once: keep back what comes in, read
what is pending, deliver it in order, then let go of what was kept back, without second copies.
"""

import asyncio
import logging
from collections.abc import Sequence

from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from offline.pending import Acknowledger
from offline.pendings import Page, Pending, PendingMessage
from push import metrics
from push.groups import key_group
from push.hub import Hub
from push.session import Outgoing

logger = logging.getLogger(__name__)

SLICE = 250  # keys of one query
RETRY_INTERVAL = 1.0  # seconds until a database that failed is asked again


async def recover(
    hub: Hub, acknowledger: Acknowledger, keys: Sequence[str], missed: float = 0.0
) -> int:
    """Deliver what is pending for keys that have sessions here; returns how many that were.

    `missed`: seconds for which this node may have heard nothing; then also what sessions of the
    same keys on other nodes have had in that time, and while the database is away, it waits: what
    came later must not be delivered before that. Without it, what is young is left to the way that
    it is on, and what the database raises is raised.
    """
    count = 0
    for start in range(0, len(keys), SLICE):
        some = keys[start : start + SLICE]
        groups = [key_group(key) for key in some]
        hub.hold(groups)
        try:
            count += await _recover_slice(hub, acknowledger, some, missed)
        finally:
            hub.release(groups)
    if count:
        metrics.RECOVERED.inc(count)
        logger.info("%d messages that had passed by were delivered", count)
    return count


async def _recover_slice(
    hub: Hub, acknowledger: Acknowledger, keys: Sequence[str], missed: float
) -> int:
    count = 0
    wanted: list[Page] = [(key, 0) for key in keys]
    while wanted:
        pages = await _read(wanted, missed)
        wanted = []
        for (key, _), page in pages.items():
            for found in page:
                if not acknowledger.has(found.id, key):
                    count += _deliver(hub, key, found)
            if len(page) == conf.REPLAY_PAGE:
                wanted.append((key, page[-1].id))
    return count


def _deliver(hub: Hub, key: str, found: PendingMessage) -> bool:
    """Deliver a message to the open sessions of a key, if it is new to this node."""
    group = key_group(key)
    if hub.delivered.has(found.id, group) or hub.replayed.has(found.id, group):
        return False
    # A session that is connecting reads what is pending itself, at its client's pace.
    is_open = [
        session
        for session in hub.groups.get(group, ())
        if not session.is_held and session.takes(found.op)
    ]
    if is_open:
        hub.delivered.add(found.id, group)
        message = Outgoing(found.id, found.op, found.body, found.is_json, key)
        for session in is_open:
            session.deliver(message)
    return bool(is_open)


async def _read(wanted: list[Page], missed: float) -> dict[Page, list[PendingMessage]]:
    while True:
        try:
            return await session_threads.run(
                Pending.objects.missed, wanted, conf.REPLAY_PAGE, missed
            )
        except DatabaseError as error:
            if not missed:
                raise  # an audit: nothing is known to be amiss, and what comes need not wait
            logger.warning("what is pending cannot be read, trying again: %s", error)
            await asyncio.sleep(RETRY_INTERVAL)
