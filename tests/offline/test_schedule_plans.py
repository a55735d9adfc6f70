"""How Postgres finds and stores due pushes, also in a table that has no statistics yet."""

import pytest
from django.db import connection
from django.db.models.functions import Now

from offline import schedule
from offline.models import ScheduledPush
from offline.store import insert
from offline.values import NewMessage

pytestmark = pytest.mark.django_db


def test_due_pushes_are_found_by_their_index_before_the_table_has_statistics(monkeypatch):
    insert([NewMessage(b"{}", 600.0, keys=("a",), send_in=3600.0) for _ in range(3000)])
    plans = []

    def explain() -> list[ScheduledPush]:
        due = ScheduledPush.objects.filter(due_at__lte=Now()).order_by("due_at", "pk")
        plans.append(due.select_for_update()[: schedule.BATCH].explain())
        return []

    monkeypatch.setattr(schedule, "lock_due", explain)
    schedule.store_due()
    assert "scheduled_due" in plans[0]
    assert "Sort" not in plans[0]


def test_no_statement_of_due_pushes_is_compiled(monkeypatch):
    """Without indexes only, plans seem so dear that Postgres would take half a second for each."""
    settings = []

    def read() -> list[ScheduledPush]:
        with connection.cursor() as cursor:
            cursor.execute("SHOW jit")
            settings.extend(cursor.fetchall())
        return []

    monkeypatch.setattr(schedule, "lock_due", read)
    schedule.store_due()
    assert settings == [("off",)]
