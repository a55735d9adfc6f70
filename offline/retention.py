"""Retention: deletion of messages past `keep_until`, with their records."""

from django.db import transaction
from django.db.models.functions import Now

from offline.models import Event, Message, Outbox, Reach

PRUNE_BATCH = 500  # messages of one DELETE, so that none holds locks for long
EVENT_BATCH = 5_000  # their events of one DELETE


def prune_batch() -> int:
    """Delete one batch of messages past `keep_until`, and their records; return how many."""
    due = Message.objects.filter(keep_until__lte=Now()).order_by("keep_until")
    ids = list(due.values_list("pk", flat=True)[:PRUNE_BATCH])
    events = Event.objects.filter(message_id__in=ids).values("pk")
    while ids and Event.objects.filter(pk__in=events[:EVENT_BATCH]).delete()[0]:
        pass  # one transaction for each DELETE, so that others do not wait for all of them
    with transaction.atomic():
        Outbox.objects.filter(message__in=ids).delete()
        Reach.objects.filter(message_id__in=ids).delete()
        Message.objects.filter(pk__in=ids).delete()
    return len(ids)
