"""What each key has not had yet."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, TypeVar

from django.db import connection, models, transaction
from django.db.models import Count, Q
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from offline.events import Event
from offline.messages import CHUNK, Message

EXPIRE_BATCH = 1000  # rows of one DELETE, so that none holds locks for long


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """One pending message as a session needs it."""

    id: int
    op: int
    body: bytes
    is_json: bool
    had: float | None = None  # seconds since a session of the key has had it; None while pending


Page = tuple[str, int]  # a key, and the id above which its messages are wanted
HistoryPage = tuple[str, int, int]  # and another such id, which stays from page to page
W = TypeVar("W", Page, HistoryPage)


class PendingManager(models.Manager["Pending"]):
    """Finds and bounds what is pending."""

    def page(self, wanted: Iterable[Page], size: int) -> dict[Page, list[PendingMessage]]:
        """For each (key, after): its first `size` pending messages with an id above `after`.

        One query, however many ask.
        """
        return _pages(list(wanted), size, _PENDING)

    def history(
        self, wanted: Iterable[HistoryPage], size: int
    ) -> dict[HistoryPage, list[PendingMessage]]:
        """For each (key, after, since): what is pending, and what sessions of the key have had.

        Only ids above both; what was had as long as there are records of it.
        """
        return _pages(list(wanted), size, f"{_PENDING} UNION {_HAD}")

    def missed(
        self, wanted: Iterable[Page], size: int, age: float
    ) -> dict[Page, list[PendingMessage]]:
        """Like `page`, with what sessions of the key have had in the last `age` seconds.

        Without an age, only what has been pending for a while and is not to be fanned out yet:
        that would overtake what others of the key have had already and this node has to come.
        """
        if age:
            return _pages(list(wanted), size, f"{_PENDING} UNION {_HAD_LATELY}", age)
        return _pages(list(wanted), size, _LONG_PENDING, conf.SWEEP_AFTER)

    def remove(self, pairs: Sequence[tuple[int, str]]) -> int:
        """Delete the rows of these (message id, key); returns how many there were."""
        deleted = 0
        with connection.cursor() as cursor:
            for start in range(0, len(pairs), CHUNK):
                chunk = pairs[start : start + CHUNK]
                marks = ", ".join(["(%s, %s)"] * len(chunk))
                cursor.execute(
                    f"DELETE FROM offline_pending WHERE (message_id, key) IN (VALUES {marks})",  # noqa: S608 - placeholders
                    [value for pair in chunk for value in pair],
                )
                deleted += cursor.rowcount
        return deleted

    def among(self, pairs: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
        """Those of these (message id, key) that are pending."""
        wanted = list(set(pairs))
        found: set[tuple[int, str]] = set()
        for start in range(0, len(wanted), CHUNK):
            chunk = set(wanted[start : start + CHUNK])
            rows = self.filter(message__in={i for i, _ in chunk}, key__in={key for _, key in chunk})
            found |= chunk & set(rows.values_list("message_id", "key"))
        return found

    def unexpired(self, key: str) -> "models.QuerySet[Pending]":
        """What is pending for `key` now."""
        return self.filter(key=key, expires_at__gt=Now())

    def crowded(self, keys: Collection[str], limit: int) -> dict[str, int]:
        """Those of `keys` that have more than `limit` pending messages, and how many."""
        names = list(keys)
        found: dict[str, int] = {}
        for start in range(0, len(names), CHUNK):
            rows = self.filter(key__in=names[start : start + CHUNK]).values("key")
            counts = rows.annotate(count=Count("pk")).filter(Q(count__gt=limit))
            found.update(counts.values_list("key", "count"))
        return found

    def trim(self, key: str, limit: int) -> int:
        """Drop the oldest pending messages of `key` above `limit`; returns how many."""
        newest = self.filter(key=key).order_by("-message_id")
        # One id, of the newest that goes; none if others were acknowledged meanwhile.
        for newest_gone in newest.values_list("message_id", flat=True)[limit : limit + 1]:
            oldest = self.filter(key=key, message_id__lte=newest_gone)
            return self._settle(oldest, Event.Kind.DROPPED, "offline_max")
        return 0

    def expire(self) -> int:
        """Settle one batch of what has expired; returns how many."""
        due = self.filter(expires_at__lte=Now()).order_by("expires_at")
        return self._settle(due[:EXPIRE_BATCH], Event.Kind.EXPIRED)

    def _settle(self, rows: "models.QuerySet[Pending]", kind: str, reason: str = "") -> int:
        with transaction.atomic():
            # What somebody else is settling at this moment is his.
            found = list(
                rows.select_for_update(skip_locked=True).values_list("pk", "message_id", "key")
            )
            for start in range(0, len(found), CHUNK):
                self.filter(pk__in=[pk for pk, *_ in found[start : start + CHUNK]]).delete()
            Event.objects.settle([(i, key) for _, i, key in found], kind, reason)
        return len(found)


# Rows (place, message_id, seconds since it was had) that are wanted.
_NO_AGE = "CAST(NULL AS double precision)"
_PENDING = """
    SELECT w.place, p.message_id, {pending} AS had
    FROM wanted w JOIN offline_pending p USING (key)
    WHERE p.message_id > w.after AND p.message_id > w.since AND p.expires_at > {now}
"""
_LONG_PENDING = """
    SELECT w.place, p.message_id, {pending} AS had
    FROM wanted w JOIN offline_pending p USING (key)
    JOIN offline_message m ON m.id = p.message_id
    WHERE p.message_id > w.after AND p.expires_at > {now} AND m.created_at < {then}
          AND NOT EXISTS (SELECT 1 FROM offline_outbox o
                          WHERE o.message_id = p.message_id AND o.parked_at IS NULL)
"""
_HAD = """
    SELECT w.place, e.message_id, {pending} AS had
    FROM wanted w JOIN offline_event e USING (key)
    JOIN offline_message m ON m.id = e.message_id
    WHERE e.message_id > w.after AND e.message_id > w.since AND m.expires_at > {now}
          AND e.kind IN ('received', 'acknowledged')
"""
_HAD_LATELY = """
    SELECT w.place, e.message_id, {age} AS had
    FROM wanted w JOIN offline_event e USING (key)
    JOIN offline_message m ON m.id = e.message_id
    WHERE e.message_id > w.after AND m.expires_at > {now} AND e.at > {then}
          AND e.kind IN ('received', 'acknowledged')
"""


def _pages(
    wanted: list[W], size: int, source: str, age: float = 0.0
) -> dict[W, list[PendingMessage]]:
    found: dict[W, list[PendingMessage]] = {ask: [] for ask in wanted}
    if not found:
        return found
    asks = list(found)
    marks = ", ".join(["(%s, %s, CAST(%s AS bigint), CAST(%s AS bigint))"] * len(asks))
    values: list[str | int] = []
    for place, (key, *ids) in enumerate(asks):
        values += [place, key, ids[0], ids[-1]]
    # The database's time where there is more than one process: their clocks may differ.
    if connection.vendor == "postgresql":
        now = "statement_timestamp()"
        then = f"{now} - interval '{age:f} seconds'"
        elapsed = f"CAST(extract(epoch FROM {now} - e.at) AS double precision)"
    else:
        moment = timezone.now()
        now, then = (
            f"'{connection.ops.adapt_datetimefield_value(time)}'"
            for time in (moment, moment - timedelta(seconds=age))
        )
        elapsed = f"(julianday({now}) - julianday(e.at)) * 86400"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH wanted (place, key, after, since) AS (VALUES {marks}),
            found AS ({source.format(now=now, then=then, age=elapsed, pending=_NO_AGE)}),
            ranked AS (
                SELECT place, message_id, had,
                       row_number() OVER (PARTITION BY place ORDER BY message_id) AS number
                FROM found
            )
            SELECT r.place, m.id, m.op, m.body, m.is_json, r.had
            FROM ranked r JOIN offline_message m ON m.id = r.message_id
            WHERE r.number <= %s
            ORDER BY r.place, m.id
            """,  # noqa: S608 - only placeholders, our own text and a time are put in
            [*values, size],
        )
        for place, message_id, op, body, is_json, had in cursor.fetchall():
            message = PendingMessage(message_id, op, bytes(body), bool(is_json), had)
            found[asks[place]].append(message)
    return found


class Pending(models.Model):
    """A message that a key has not had yet. The row goes when it has."""

    message = models.ForeignKey(Message, on_delete=models.CASCADE, db_index=False)
    key = models.CharField(max_length=255)
    expires_at = models.DateTimeField(db_index=True)

    objects: ClassVar[PendingManager] = PendingManager()

    class Meta:
        app_label = "offline"
        verbose_name_plural = "pending"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["message", "key"], name="pending_once"),
        ]
        indexes: ClassVar = [models.Index(fields=["key", "message"])]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}"
