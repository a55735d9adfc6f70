"""Recovery: a node reads messages of its own keys that it may have missed, and delivers them.

A recovery follows a gap in the layer's connection. An audit is a regular check without a known gap.
Both take the steps of a session that connects, for all sessions of a key at once: hold live
messages, read the database, deliver read and held messages in order of id, release the hold.

Why no message is delivered behind a later one: at the moment of the read, each committed message of
a key is in one of these states.

1. It is pending. It is read.
2. A session on another node has received it since the gap began. It is read.
3. A session has received it before the gap began. Then this node has had it too, or it is older
   than the sessions here.
4. It is published on the present connection of this node. It is held when it arrives.

An audit has no gap to read from. It waits for an echo before it delivers: by then all messages that
were published before the read have arrived.

A message that another session has received is delivered only to sessions that were open by then. It
is not due to sessions opened later, and they would get it behind messages that they already have.

A session that has joined after the read gets nothing of it. Its replay has read later, and it may
have been sent later messages: the hold ends when a key's last session leaves.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from operator import attrgetter
from typing import NamedTuple

from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from offline import key_messages
from offline.node_io import Acknowledger
from offline.values import MessagePage, Page, PendingMessage
from push.bus.group_names import key_group
from push.bus.layers import LAYER_ERRORS
from push.metrics import definitions as metrics
from push.node.hub import Hub
from push.session.outgoing import OutgoingMessage
from push.session.session import Session

logger = logging.getLogger(__name__)

SLICE = 250  # keys of one query
RETRY_INTERVAL = 1.0  # seconds until a failed query is repeated
ECHO_TIMEOUT = 1.0  # seconds that an audit waits for messages under way


# The devices of the sessions here, by key. Other keys have the scope `any`.
Devices = Mapping[str, tuple[str, ...]]


class MissedQuery(NamedTuple):
    """Result of one query. `asked`: when the query began, monotonic seconds.

    A message of a page of devices occurs once for each device that it is for. `following`: the
    pages after those that were full.
    """

    pages: dict[Page, MessagePage]
    asked: float
    following: list[Page]


async def recover(
    hub: Hub, acknowledger: Acknowledger, keys: Sequence[str], since: float | None = None
) -> int:
    """Deliver missed messages of keys that have sessions here; return the number of messages.

    `since`: begin of the gap, monotonic seconds; None for an audit.

    After a gap, messages that sessions on other nodes have received since then are delivered, too.
    A query that fails is repeated until it succeeds, because later messages must not be delivered
    first.

    An audit skips keys that are held by another owner. It also skips messages that have been
    pending for less than `SWEEP_AFTER` seconds, which may still arrive. Raises what the database
    raises.
    """
    count = 0
    for start in range(0, len(keys), SLICE):
        part = list(keys[start : start + SLICE])
        if since is None:
            part = [key for key in part if not hub.holds.has(key_group(key))]
        hold = hub.holds.hold(map(key_group, part))
        try:
            if since is None:
                count += await _audit(hub, acknowledger, part)
            else:
                count += await _recover_gap(hub, acknowledger, part, since)
        finally:
            hub.holds.release(hold)
    if count:
        metrics.RECOVERED.inc(count)
        logger.info("recovered %d missed messages", count)
    return count


async def _recover_gap(
    hub: Hub, acknowledger: Acknowledger, keys: Sequence[str], since: float
) -> int:
    """Deliver all messages of keys that may have been missed during a gap."""
    count = 0
    for key in keys:
        for session in hub.groups.get(key_group(key), ()):
            # A connecting session may have read before the gap ended; let it read again itself,
            # at its client's pace.
            session.is_behind = session.is_connecting
    pages: list[Page] = [(key, 0) for key in keys]
    while pages:
        missed = await _read_until(pages, _devices_of(hub, keys), since)
        count += _deliver_all(hub, acknowledger, missed)
        pages = missed.following
        if not pages:
            pages = [(key, 0) for key in keys if hub.holds.take_overflow(key_group(key))]
    return count


async def _audit(hub: Hub, acknowledger: Acknowledger, keys: Sequence[str]) -> int:
    """Deliver long-pending messages of keys, after all messages under way have arrived."""
    count, gaps = 0, hub.gaps
    pages: list[Page] = [(key, 0) for key in keys]
    while pages:
        missed = await session_threads.run(_read, pages, _devices_of(hub, keys), None)
        if not any(missed.pages.values()):
            return count
        if not await _await_arrivals(hub) or hub.gaps != gaps:
            return count  # the next audit reads them again
        count += _deliver_all(hub, acknowledger, missed)
        pages = missed.following
    return count


def _devices_of(hub: Hub, keys: Iterable[str]) -> Devices:
    """Return the devices of the sessions here of each key with the scope `each`."""
    if not conf.ACK_SCOPE:
        return {}
    sessions = {key: hub.groups.get(key_group(key), ()) for key in keys}
    devices = {
        key: {session.device for session in members if session.device is not None}
        for key, members in sessions.items()
    }
    return {key: tuple(sorted(names)) for key, names in devices.items() if names}


async def _await_arrivals(hub: Hub) -> bool:
    """Wait for an echo; return whether all messages published before now have arrived."""
    try:
        return await hub.echoes.send(ECHO_TIMEOUT)
    except LAYER_ERRORS:
        return False


def _deliver_all(hub: Hub, acknowledger: Acknowledger, missed: MissedQuery) -> int:
    count = 0
    for (key, _), page in missed.pages.items():
        group = key_group(key)
        for message_id, copies in groupby(page, attrgetter("id")):
            messages = list(copies)
            due = [_due(hub, acknowledger, key, copy, missed.asked) for copy in messages]
            sessions = list(dict.fromkeys(chain(*due)))
            if sessions:
                hub.holds.deliver_below(group, message_id)
                count += _deliver(hub, group, key, messages[0], sessions)
    return count


def _due(
    hub: Hub, acknowledger: Acknowledger, key: str, pending: PendingMessage, asked_at: float
) -> list[Session]:
    """Return the open sessions of a key that a message is due to and that have not received it.

    `asked_at`: when the query that found the message began, monotonic seconds.
    """
    group = key_group(key)
    if hub.delivered.has(pending.id, group):
        return []
    excluded = pending.exclude.split(",")
    due = [
        session
        for session in hub.groups.get(group, ())
        if not session.is_connecting
        and session.joined <= asked_at
        and (session.device is None or session.device == pending.device)
        and session.accepts_op(pending.op)
        and session.id not in excluded
        and not hub.replayed.has(pending.id, session.id)
        and not session.awaits_ack_of(pending.id)
        and (pending.had is None or session.joined_before(asked_at - pending.had, pending.had_xmin))
    ]
    if len(due) == 1 and acknowledger.has(pending.id, key, due[0].device):
        return []  # that session has acknowledged it, which is not stored yet
    return due


def _deliver(
    hub: Hub, group: str, key: str, pending: PendingMessage, sessions: Sequence[Session]
) -> bool:
    if not hub.delivered.add(pending.id, group):
        return False  # it was among the held messages
    message = OutgoingMessage(pending.id, pending.op, pending.body, pending.is_json, key)
    for session in sessions:
        session.deliver(message)
    return True


async def _read_until(pages: list[Page], devices: Devices, since: float) -> MissedQuery:
    """Read pages of missed messages; repeat while the database is unavailable."""
    while True:
        try:
            return await session_threads.run(_read, pages, devices, since)
        except DatabaseError as error:
            logger.warning("could not read pending messages, retrying: %s", error)
            await asyncio.sleep(RETRY_INTERVAL)


def _read(pages: list[Page], devices: Devices, since: float | None) -> MissedQuery:
    now = time.monotonic()  # the event loop's clock
    age = 0.0 if since is None else max(0.0, now - since)
    size = conf.REPLAY_PAGE
    plain = [page for page in pages if page[0] not in devices]
    missed = key_messages.read_missed(plain, size, age)
    following = [(key, page[-1].id) for (key, _), page in missed.items() if len(page) == size]
    if of_devices := [page for page in pages if page[0] in devices]:
        missed_of_devices = key_messages.read_missed_of_devices(of_devices, devices, size, age)
        missed |= missed_of_devices.pages
        following += missed_of_devices.following
    return MissedQuery(missed, now, following)
