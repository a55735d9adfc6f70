"""Notices: pushes that notify, from their acceptance to a notification for each device.

The row of a notice is committed with its push. Nothing reads it before it is due. Then one
transaction a part turns it into notifications for those keys that have not settled the push.
An acknowledgement or a cancellation that was committed before has deleted the pending row, so the
devices of that key get nothing.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from imgo_site.postgres.limits import limit_idle
from offline.models import DuePush, Pending, ScheduledPush
from offline.values import NewMessage
from push.devices.addresses import configured
from push.devices.tables import Device, Notice, Notification

KEYS_MAX = 1_000  # keys of one transaction
INSERT_CHUNK = 400  # rows of one statement
RETRY_SCHEDULED = 1.0  # seconds until a push is looked at again that is stored late
PRUNE_BATCH = 500  # notices of one DELETE


def add(messages: Sequence[NewMessage], ids: Sequence[int], is_new: Sequence[bool]) -> None:
    """Insert the notices of the messages that notify, in the transaction that stores them.

    Without such messages, no statement is executed. `ids`, `is_new`: of the messages.
    """
    rows = [
        (new, push_id)
        for new, push_id, is_first in zip(messages, ids, is_new, strict=True)
        if new.notify and is_first
    ]
    if not rows:
        return
    if connection.vendor != "postgresql":
        Notice.objects.bulk_create(
            Notice(push_id=push_id, content=new.notify, due_at=_due_at(new))
            for new, push_id in rows
        )
        return
    # Not the ORM: the transaction was begun by a statement, which Django does not know of.
    with connection.cursor() as cursor:
        cursor.executemany(
            _INSERT,
            [
                (push_id, new.notify, new.send_at, new.send_in or 0.0, new.notify_after)
                for new, push_id in rows
            ],
        )


# A time in the past is now.
_INSERT = """
    INSERT INTO push_notice (push_id, content, due_at, after_key)
    VALUES (%s, %s, greatest(
        coalesce(%s::timestamptz, CURRENT_TIMESTAMP + make_interval(secs => %s)), CURRENT_TIMESTAMP
    ) + make_interval(secs => %s), '')
"""


def _due_at(new: NewMessage) -> Any:
    """Return when a notice is due. SQLite has the clock of its one process."""
    now = timezone.now()
    begin = new.send_at or now + timedelta(seconds=new.send_in or 0.0)
    return max(begin, now) + timedelta(seconds=new.notify_after)


def is_due() -> bool:
    """Return whether a notice is due. It reads one row of an index."""
    return Notice.objects.filter(expanded_at=None, due_at__lte=Now()).exists()


def expand() -> bool:
    """Make the notifications of one part of a due notice; return whether there was one.

    Several processes may do this at once: each takes a notice that no other has locked.
    """
    with transaction.atomic():
        limit_idle()
        due = Notice.objects.filter(expanded_at=None, due_at__lte=Now()).order_by("due_at")
        notice = due.select_for_update(skip_locked=True).first()
        if notice is None:
            return False
        row = Notice.objects.filter(pk=notice.pk)
        if ScheduledPush.objects.filter(pk=notice.pk).exists():
            row.update(due_at=Now() + timedelta(seconds=RETRY_SCHEDULED))
            return True
        last_key = _expand(notice)
        if last_key:
            row.update(after_key=last_key)
        else:
            row.update(expanded_at=Now())
    return True


def _expand(notice: Notice) -> str:
    """Insert the notifications for the next keys; return the last key, "" if no more follow."""
    due_push = DuePush.objects.filter(pk=notice.pk).values_list("message_id", flat=True).first()
    message_id = due_push or notice.pk
    pending = Pending.objects.filter(
        message=message_id, key__gt=notice.after_key, expires_at__gt=Now()
    )
    rows = list(pending.order_by("key").values_list("key", "expires_at")[:KEYS_MAX])
    keys = dict(rows)
    names = list(keys)
    for start in range(0, len(names), INSERT_CHUNK):
        part = names[start : start + INSERT_CHUNK]
        devices = Device.objects.filter(key__in=part, provider__in=configured()).order_by("pk")
        Notification.objects.bulk_create(
            (
                Notification(
                    notice=notice,
                    message_id=message_id,
                    key=key,
                    device_id=device_id,
                    provider=provider,
                    next_at=Now(),
                    expires_at=keys[key],
                )
                for device_id, key, provider in devices.values_list("pk", "key", "provider")
            ),
            batch_size=INSERT_CHUNK,
            ignore_conflicts=True,  # a device that has changed its key between two parts
        )
    return names[-1] if len(rows) == KEYS_MAX else ""


def forget() -> int:
    """Delete one batch of notices that are done and older than `RECORD_KEEP`; return how many.

    Notifications of a provider that is not configured any more end when their message expires. If
    none is configured, notices that are due are not done, and end all the same.
    """
    orphans = Notification.objects.exclude(provider__in=configured())
    orphans.filter(expires_at__lte=Now()).delete()
    waiting = Notification.objects.filter(notice=OuterRef("pk"))
    limit = Now() - timedelta(seconds=conf.RECORD_KEEP)
    old = Notice.objects.filter(expanded_at__lt=limit)
    if not configured():
        old |= Notice.objects.filter(expanded_at=None, due_at__lt=limit)
    old = old.exclude(Exists(waiting)).order_by("pk")
    ids = list(old.values_list("pk", flat=True)[:PRUNE_BATCH])
    if ids:
        Notice.objects.filter(pk__in=ids).delete()
    return len(ids)
