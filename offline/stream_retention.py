"""Deletion of messages that streams no longer keep, and of unused streams."""

from datetime import datetime, timedelta

from django.db import connection, models, transaction
from django.db.models import Count, Exists, F, OuterRef, Sum
from django.db.models.functions import Length
from django.utils import timezone

from imgo_site.room_policies import policy_of
from offline.models import Outbox, Stream, StreamMessage

KEEP_UNUSED = 7 * 86_400  # seconds that a stream without message and session is kept, at least
PRUNED_TOGETHER = 500  # streams, or messages, of one transaction


def empty(room: str) -> int:
    """Delete the kept messages of a room; positions keep their meaning. Return how many."""
    stream = Stream.objects.filter(room=room).first()
    return 0 if stream is None else delete_messages(stream, StreamMessage.objects.all())


def prune(after: int = 0) -> int:
    """Delete what is outside of the window of its room's policy, in one batch of streams.

    `after`: id of the last stream of the batch before; 0 for the first. Return the last one's of
    this batch, 0 if it was the last batch.
    """
    streams = list(Stream.objects.filter(pk__gt=after).order_by("pk")[:PRUNED_TOGETHER])
    now = timezone.now()
    for stream in streams:
        policy = policy_of(stream.room)
        oldest = now - timedelta(seconds=policy.history_ttl)
        kept = StreamMessage.objects.filter(stream=stream)
        last = max(stream.top - policy.history, _last_aged(kept, oldest))
        if kept.filter(offset__lte=last).exists():
            delete_messages(stream, kept.filter(offset__lte=last))
        unused = now - timedelta(seconds=max(policy.history_ttl, KEEP_UNUSED))
        if stream.used_at < unused and not kept.exists():
            Stream.objects.filter(pk=stream.pk, used_at=stream.used_at).delete()
    return streams[-1].pk if len(streams) == PRUNED_TOGETHER else 0


def _last_aged(kept: "models.QuerySet[StreamMessage]", oldest: datetime) -> int:
    """Return the offset of the newest message that is too old; 0 if there is none."""
    aged = kept.filter(at__lte=oldest).order_by("-offset").values_list("offset", flat=True)
    return aged.first() or 0


def prune_to_size(limit: int) -> int:
    """Delete the oldest messages of all streams until their bodies have at most `limit` bytes.

    One batch; return the number of deleted messages.
    """
    excess = total_size() - limit
    if excess <= 0:
        return 0
    oldest = StreamMessage.objects.filter(~_is_waiting()).order_by("pk")[:PRUNED_TOGETHER]
    last: dict[int, int] = {}
    for stream_id, offset, size in oldest.values_list("stream_id", "offset", Length("body")):
        last[stream_id] = max(offset, last.get(stream_id, 0))
        excess -= size
        if excess <= 0:
            break
    count = 0
    for stream_id, offset in last.items():
        stream = Stream.objects.get(pk=stream_id)
        count += delete_messages(
            stream, StreamMessage.objects.filter(stream=stream, offset__lte=offset)
        )
    return count


def total_size() -> int:
    """Return the bytes of the bodies that all streams keep."""
    return Stream.objects.aggregate(size=Sum("size"))["size"] or 0


def delete_messages(stream: Stream, due: "models.QuerySet[StreamMessage]") -> int:
    """Delete messages of one stream, and take their bytes off its size. Return how many.

    Messages that are still in the outbox stay. Their drain finds their offsets here, and would give
    them other ones, behind later messages.
    """
    with transaction.atomic():
        rows = Stream.objects.filter(pk=stream.pk)
        list(rows.select_for_update() if connection.features.has_select_for_update else rows)
        rows_due = due.filter(~_is_waiting(), stream_id=stream.pk)
        sums = rows_due.aggregate(size=Sum(Length("body")), count=Count("pk"))
        if sums["count"]:
            rows_due.delete()
            rows.update(size=F("size") - sums["size"])
        count: int = sums["count"]
        return count


def _is_waiting() -> Exists:
    """Return the condition that a message of a stream is in the outbox."""
    return Exists(Outbox.objects.filter(message_id=OuterRef("message_id")))
