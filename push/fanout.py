"""Fan-out: sends a partition's outbox through the channel layer, in order of id.

A worker drains the partition after a task has woken it, or a node does in a sweep. Only one process
drains a partition at a time.
"""

import logging
import time
from collections.abc import Sequence

from imgo_site import tracing
from imgo_site.ack_scope import is_each
from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from imgo_site.logs import note_push
from imgo_site.push_origin import parent_of, request_of
from offline import outbox_queue, replacement, settlement, streams
from offline.models import Message
from offline.partitions import partition_of
from offline.values import OutboxMessage, OutboxRow
from push.bus.envelope import Envelope, message_envelope
from push.bus.group_names import ALL, key_group, room_group
from push.bus.publish import publish
from push.metrics import definitions as metrics
from push.registry.select import get_registry

logger = logging.getLogger(__name__)

PAGE = 200  # messages read at a time
ONLINE_FACTOR = 10  # times OFFLINE_MAX that may be pending for a key that is online
PUBLISH_MAX = 5_000  # envelopes handed to the layer at a time
BURST = 60.0  # seconds in which a connected device acknowledges its messages
SPREAD_MAX = 3_600.0  # seconds; a message to everyone that arrives later is of no use


def drain(partition: int, *, wait: bool = True) -> int:
    """Send all messages of a partition's outbox; return the number of messages sent.

    `wait`: wait some time for another process that drains the partition.

    Messages that were not sent stay in the outbox.
    Raises `Busy` if another process drains the partition; `Unavailable` if the layer is
    unavailable; and what the database raises.
    """
    count = after = 0
    keys: set[str] = set()  # that have pending messages of these rows
    tried: set[int] = set()  # rows
    while True:
        with outbox_queue.draining(partition, wait=wait):
            rows = outbox_queue.read_page(partition, after, PAGE)
            new = [row for row in rows if row.pk not in tried]
            replacement.mark_replaced(new)
            ready, unplaced = _placed(new)
            count += _send(ready)
            # Sent in the next turn: what is published has its offset for good.
            current, deferred = replacement.lock_current(unplaced)
            streams.assign(current)
        waiting = {message.pk for message in deferred}
        tried.update(row.pk for row in ready)
        tried.update(row.pk for row in new if row.message_id in waiting)
        for row in ready:
            if row.message.stored:
                keys.update(_keys_of(row))
        if len(unplaced) > len(deferred):
            continue
        if len(rows) < PAGE:
            break
        after = rows[-1].message_id  # skips messages of this page that could not be sent
    trim(keys)
    return count


def _placed(rows: Sequence[OutboxRow]) -> tuple[list[OutboxRow], list[OutboxMessage]]:
    """Return the rows that can be sent, and the messages that need an offset of their stream first.

    Rows of one stream are in order of offset: a message that was committed late has a lower id. A
    message to the same room that no stream keeps waits for those before it.
    """
    if not any(streams.is_kept(row.message) for row in rows):
        return list(rows), []
    places = streams.places_of(rows)
    ready: list[OutboxRow] = []
    unplaced: list[OutboxMessage] = []
    by_room: dict[str, list[OutboxRow]] = {}
    held: set[str] = set()  # rooms with a message that has no offset yet
    for row in rows:
        room = row.message.room
        if streams.is_kept(row.message):
            row.place = places.get(row.message_id)
            if row.place is None and not row.replaced_for:
                unplaced.append(row.message)
                held.add(room)
                continue
            if row.place is not None:
                by_room.setdefault(room, []).append(row)
        elif room in held:
            continue
        ready.append(row)
    in_order = {room: iter(sorted(its, key=_offset)) for room, its in by_room.items()}
    ready = [row if row.place is None else next(in_order[row.message.room]) for row in ready]
    return ready, unplaced


def _offset(row: OutboxRow) -> int:
    assert row.place is not None
    return row.place[1]


def _send(rows: Sequence[OutboxRow]) -> int:
    """Send the rows that have not expired, and drop the others; return how many were sent."""
    count, read_at = 0, time.monotonic()
    done: list[OutboxRow] = []
    batch: list[Envelope] = []
    for row in rows:
        if not _is_due(row):
            if row.is_late:
                metrics.DROPS.labels("too_late").inc()
            done.append(row)
            continue
        row.span = tracing.begin("imgo.fan_out", parent_of(row.origin), push_id=row.message_id)
        batch += envelopes_of(row)
        done.append(row)
        if len(batch) >= PUBLISH_MAX:
            count += _publish_or_isolate(done, batch, read_at)
            done, batch = [], []
    return count + _publish_or_isolate(done, batch, read_at)


def _is_due(row: OutboxRow) -> bool:
    """Return whether a row must be sent: it has an offset, or has not expired or been replaced.

    A message to keys may have been replaced for some of them.
    """
    if row.place is not None:
        return True
    is_replaced = bool(row.replaced_for) and row.message.audience == Message.Audience.ROOM
    return not row.is_late and not is_replaced


def _publish_or_isolate(rows: list[OutboxRow], envelopes: list[Envelope], read_at: float) -> int:
    """Publish rows and delete them; if that fails, publish each row by itself.

    So one bad message does not block the others. Its failure is recorded, and after some failures
    it is parked. Return the number of messages sent.

    `read_at`: when the rows were read, monotonic seconds.

    Raises `Unavailable` if the layer is unavailable.
    """
    try:
        publish(envelopes)
    except Unavailable:
        raise
    except Exception as error:
        if len(rows) > 1:
            single = [(row, envelopes_of(row) if _is_due(row) else []) for row in rows]
            return sum(_publish_or_isolate([row], its, read_at) for row, its in single)
        fields = {"push_id": str(rows[0].message_id)}
        if request := request_of(rows[0].origin):
            fields["request_id"] = request
        logger.exception("message %d cannot be fanned out", rows[0].message_id, extra=fields)
        if outbox_queue.record_failure(rows[0], error):
            metrics.DROPS.labels("parked").inc()
            text = "message %d is parked: gave up after %d attempts; see Outbox in the admin"
            logger.error(text, rows[0].message_id, outbox_queue.ATTEMPTS_MAX, extra=fields)
        return 0
    outbox_queue.delete_rows(rows)
    sent = [row for row in rows if _is_due(row)]
    since_read = time.monotonic() - read_at
    for row in sent:
        metrics.FANOUT_SECONDS.observe(max(0.0, row.age + since_read))
        note_push(row.message_id, "fanned out", request_of(row.origin))
        if row.span is not None:
            row.span.end()
    return len(sent)


def envelopes_of(row: OutboxRow) -> list[Envelope]:
    """Return the envelopes of a row, marked with its drain; see `superseded_drains`."""
    envelopes = _envelopes_of(row)
    for envelope in envelopes:
        if row.generation:
            envelope["drain"] = [row.partition, row.generation]
        if row.exclude:
            envelope["exclude"] = row.exclude
    return envelopes


def _envelopes_of(row: OutboxRow) -> list[Envelope]:
    """Return one envelope for each group of this partition that the message goes to.

    Keys that have acknowledged the message are included. One device of a key may have got it from a
    replay before this fan-out, and the other devices still need it.
    """
    message = row.message
    trace = tracing.traceparent(row.span) if row.span is not None else ""
    if message.audience == Message.Audience.ROOM:
        envelope = message_envelope(room_group(message.room), message, trace=trace)
        if row.place is not None:
            envelope["epoch"], envelope["offset"] = row.place
        return [envelope]
    if message.audience == Message.Audience.ALL:
        envelope = message_envelope(ALL, message, trace=trace)
        if message.speed:
            envelope["spread"] = _spread(message.speed)
        return [envelope]
    settles = message.stored
    return [
        message_envelope(key_group(key), message, key if settles else "", trace)
        for key in _keys_of(row)
    ]


def _spread(speed: int) -> float:
    """Return the seconds over which each node must spread a message to everyone.

    `speed`: sessions to reach per second, on all nodes together.
    """
    try:
        sessions = sum(node.sessions for node in get_registry().nodes())
    except Unavailable:
        return 0.0  # send it at once: a push to everyone is not stored, so it would be lost
    return min(SPREAD_MAX, sessions / speed)


def _keys_of(row: OutboxRow) -> list[str]:
    keys: list[str] = row.message.keys or []
    if row.replaced_for:
        keys = [key for key in keys if key not in row.replaced_for]
    if row.partitions == 1:
        return keys
    return [key for key in keys if partition_of(key, row.partitions) == row.partition]


def trim(keys: set[str]) -> None:
    """Drop the oldest pending messages of keys that have more than `OFFLINE_MAX`.

    For connected keys the limit is ten times higher: during a burst, messages stay pending until
    their acknowledgements arrive. For keys with the scope `each`, the limit is that of a device.
    """
    for key, count in settlement.keys_over_limit(keys, conf.OFFLINE_MAX).items():
        limit = conf.OFFLINE_MAX
        if is_each(key):
            metrics.DROPS.labels("offline_max").inc(_trim_devices(key))
            continue
        if count <= limit * ONLINE_FACTOR and _may_be_online(key):
            continue
        dropped = settlement.drop_oldest(key, limit)
        metrics.DROPS.labels("offline_max").inc(dropped)


def _trim_devices(key: str) -> int:
    """Drop the oldest pending messages of the key's devices above `OFFLINE_MAX`; return how many.

    Which devices of a connected key are connected is not known here. Up to ten times the limit,
    they keep what has been pending for less than `BURST` seconds.
    """
    limit, dropped = conf.OFFLINE_MAX, 0
    is_online = _may_be_online(key)
    for device, count in settlement.devices_over_limit(key, limit).items():
        wait = BURST if is_online and count <= limit * ONLINE_FACTOR else 0.0
        dropped += settlement.drop_oldest(key, limit, device=device, pending_for=wait)
    return dropped


def _may_be_online(key: str) -> bool:
    try:
        return bool(get_registry().sessions(key))
    except Unavailable:
        return True
