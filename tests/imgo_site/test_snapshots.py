"""Which transactions a snapshot saw."""

import pytest
from django.db import connection

from imgo_site.snapshots import XID_MODULUS, Snapshot
from tests import call_and_close, in_thread


@pytest.mark.parametrize(
    ("text", "seen", "unseen"),
    [
        ("10:10:", [3, 9], [10, 11]),
        ("10:15:10,12", [9, 11, 13, 14], [10, 12, 15, 20]),
        # Rows have the lower half of an id alone, which begins anew after 2**32.
        (f"{XID_MODULUS + 5}:{XID_MODULUS + 5}:", [4, XID_MODULUS - 1], [5, 6]),
        (
            f"{XID_MODULUS - 2}:{XID_MODULUS - 2}:",
            [XID_MODULUS - 3],
            [XID_MODULUS - 2, XID_MODULUS - 1, 0, 7],
        ),
        (
            f"{3 * XID_MODULUS + 10}:{3 * XID_MODULUS + 15}:{3 * XID_MODULUS + 12}",
            [9, 11, XID_MODULUS - 7],
            [12, 15],
        ),
    ],
)
def test_snapshot_sees_what_had_ended(text, seen, unseen):
    snapshot = Snapshot.parse(text)
    assert [snapshot.includes(xmin) for xmin in seen] == [True] * len(seen)
    assert [snapshot.includes(xmin) for xmin in unseen] == [False] * len(unseen)


def insert(name: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO push_duty (name, until) VALUES (%s, now()) RETURNING xmin::text::bigint",
            [name],
        )
        return cursor.fetchone()[0]


def take_snapshot() -> Snapshot:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_snapshot()::text")
        return Snapshot.parse(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
async def test_snapshot_of_postgres_sees_rows_committed_before_it():
    before = await in_thread(call_and_close, insert, "snapshot-1")
    snapshot = await in_thread(call_and_close, take_snapshot)
    after = await in_thread(call_and_close, insert, "snapshot-2")
    assert (snapshot.includes(before), snapshot.includes(after)) == (True, False)
