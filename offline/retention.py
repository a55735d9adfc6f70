"""Retention: deletion of messages past `keep_until`, with their records."""

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from offline.models import DuePush, Event, Message, Outbox, Reach

PRUNE_BATCH = 500  # messages of one DELETE, so that none holds locks for long
EVENT_BATCH = 5_000  # their events of one DELETE


def prune_batch(read_up_to: int | None = None) -> int:
    """Delete one batch of messages past `keep_until`, and their records; return how many.

    `read_up_to`: keep messages with events of higher ids, which a reader still needs. None: no
    reader.
    """
    due = Message.objects.filter(keep_until__lte=Now()).order_by("keep_until")
    unread = Event.objects.none()
    if read_up_to is not None:
        unread = Event.objects.filter(pk__gt=read_up_to)
        due = due.exclude(Exists(unread.filter(message_id=OuterRef("pk"))))
    ids = list(due.values_list("pk", flat=True)[:PRUNE_BATCH])
    events = Event.objects.filter(message_id__in=ids)
    if read_up_to is not None:
        events = events.filter(pk__lte=read_up_to)
    part = events.values("pk")[:EVENT_BATCH]
    while ids and Event.objects.filter(pk__in=part).delete()[0]:
        pass  # one transaction for each DELETE, so that others do not wait for all of them
    with transaction.atomic():
        if read_up_to is not None:  # events that were committed meanwhile
            late = unread.filter(message_id__in=ids).values_list("message_id", flat=True)
            ids = sorted({*ids} - {*late})
        Outbox.objects.filter(message__in=ids).delete()
        Reach.objects.filter(message_id__in=ids).delete()
        DuePush.objects.filter(message_id__in=ids).delete()
        Message.objects.filter(pk__in=ids).delete()
    return len(ids)
