"""Repartitioning: change of the number of partitions while messages arrive.

Each number begins a generation, and a row of the outbox carries the generation by which it was
spread. After a change a key is in another partition, and its newer messages must not overtake older
ones that are still in the outbox. So the drains leave rows of a new generation alone until it is
open. It opens when no row of an earlier generation is left, and no open transaction may still store
one (`advance`). Meanwhile pushes are accepted, and wait.

A transaction that stores messages takes a shared lock before its statement reads the number. So
those that may have read the number before hold the lock when the change is committed.
"""

from typing import NamedTuple

from django.db import transaction
from django.db.models.functions import Now

from imgo_site.errors import Unavailable
from offline.models import Outbox, Partitioning
from offline.partitions import Current, current
from offline.sql import dialect

LOCK = -3  # names the lock under which the number changes, beside those of the partitions


class Progress(NamedTuple):
    """State of a change: what the new generation waits for, if it is not open.

    `transactions`: number of those that may still store messages of the generations before.
    `has_messages`: whether messages of those generations wait for fan-out; False while there are
    such transactions.
    `is_open`: whether messages of the new generation are fanned out from now on.
    """

    partitions: int
    transactions: int
    has_messages: bool
    is_open: bool


def change(partitions: int) -> Current:
    """Change the number of partitions; return what messages are accepted by from now on.

    Call it outside of a transaction, and then `advance` until the new generation is open.

    Raises `Unavailable` while an earlier change is in progress.
    """
    with dialect().partition_lock(LOCK, wait=True) as is_held, transaction.atomic():
        before = current()
        if not is_held or not before.is_open:
            raise Unavailable("The number of partitions is being changed already.")
        if before.partitions == partitions:
            return before
        row = Partitioning.objects.create(partitions=partitions)
    return Current(row.generation, partitions, is_open=False)


def advance() -> Progress | None:
    """Open the next generation if nothing of those before is left; return what it waits for.

    Return None if no change is in progress.
    """
    if not Partitioning.objects.filter(opened_at=None).exists():
        return None
    with transaction.atomic():
        rows = Partitioning.objects.select_for_update().order_by("generation")
        row = rows.filter(opened_at=None).first()
        if row is None:
            return None
        # In this order: what these transactions have stored is seen by the query that follows.
        running = dialect().accepting_transactions()
        blockers = sorted(running if row.blockers is None else running & set(row.blockers))
        before = Outbox.objects.filter(generation__lt=row.generation, parked_at=None)
        has_messages = not blockers and before.exists()
        is_open = not blockers and not has_messages
        if is_open or blockers != row.blockers:
            row.blockers, row.opened_at = blockers, Now() if is_open else None
            row.save(update_fields=["blockers", "opened_at"])
    return Progress(row.partitions, len(blockers), has_messages, is_open)
