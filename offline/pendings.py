"""What each key has not had yet."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from django.db import connection, models, transaction
from django.db.models import Count, Q
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.snapshots import Everything, Snapshot
from offline.events import Event
from offline.messages import CHUNK, Message
from offline.pages import query

COUNTED_FACTOR = 10  # times the limit: so many more are told apart by those who ask
EXPIRE_BATCH = 1000  # rows of one DELETE, so that none holds locks for long


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """One pending message as a session needs it."""

    id: int
    op: int
    body: bytes
    is_json: bool
    had: float | None = None  # seconds since a session of the key has had it; None while pending
    had_xmin: int | None = None  # of the event that says so; None where that is not known
    snapshot: Snapshot | Everything | None = field(default=None, compare=False)  # of the reading


Page = tuple[str, int]  # a key, and the id above which its messages are wanted
HistoryPage = tuple[str, int, int]  # and another such id, which stays from page to page
W = TypeVar("W", Page, HistoryPage)


class PendingManager(models.Manager["Pending"]):
    """Finds and bounds what is pending."""

    def page(self, wanted: Iterable[Page], size: int) -> dict[Page, list[PendingMessage]]:
        """For each (key, after): its first `size` pending messages with an id above `after`.

        One query, however many ask.
        """
        return _pages(list(wanted), size, "pending")

    def history(
        self, wanted: Iterable[HistoryPage], size: int
    ) -> dict[HistoryPage, list[PendingMessage]]:
        """For each (key, after, since): what is pending, and what sessions of the key have had.

        Only ids above both; what was had as long as there are records of it.
        """
        return _pages(list(wanted), size, "history")

    def missed(
        self, wanted: Iterable[Page], size: int, age: float
    ) -> dict[Page, list[PendingMessage]]:
        """Like `page`, with what sessions of the key have had in the last `age` seconds.

        Without an age, only what has been pending for a while and is not to be fanned out yet:
        that would overtake what others of the key have had already and this node has to come.
        """
        if age:
            return _pages(list(wanted), size, "lately", age)
        return _pages(list(wanted), size, "long pending", conf.SWEEP_AFTER)

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
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(_AMONG, [[i for i, _ in wanted], [key for _, key in wanted]])
                return set(cursor.fetchall())
            for start in range(0, len(wanted), CHUNK):
                chunk = wanted[start : start + CHUNK]
                sql = _AMONG_VALUES.format(marks=", ".join(["(%s, %s)"] * len(chunk)))
                cursor.execute(
                    sql,
                    [value for pair in chunk for value in pair],
                )
                found.update(cursor.fetchall())
        return found

    def unexpired(self, key: str) -> "models.QuerySet[Pending]":
        """What is pending for `key` now."""
        return self.filter(key=key, expires_at__gt=Now())

    def crowded(self, keys: Collection[str], limit: int) -> dict[str, int]:
        """Return those of `keys` that have more than `limit` pending messages, and how many.

        On Postgres it counts no further than `COUNTED_FACTOR` times the limit, and one.
        """
        names = list(keys)
        found: dict[str, int] = {}
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(_CROWDED, [names, limit * COUNTED_FACTOR + 1, limit])
                return dict(cursor.fetchall())
        for start in range(0, len(names), CHUNK):
            rows = self.filter(key__in=names[start : start + CHUNK]).values("key")
            counts = rows.annotate(count=Count("pk")).filter(Q(count__gt=limit))
            found.update(counts.values_list("key", "count"))
        return found

    def trim(self, key: str, limit: int) -> int:
        """Drop the oldest pending messages of `key` above `limit`; returns how many."""
        newest = self.filter(key=key).order_by("-message_id")
        dropped = 0
        # One id, of the newest that goes; none if others were acknowledged meanwhile.
        for newest_gone in newest.values_list("message_id", flat=True)[limit : limit + 1]:
            oldest = self.filter(key=key, message_id__lte=newest_gone).order_by("message_id")
            while count := self._settle(oldest[:EXPIRE_BATCH], Event.Kind.DROPPED, "offline_max"):
                dropped += count
        return dropped

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


_AMONG = """
    SELECT p.message_id, p.key FROM unnest(%s::bigint[], %s::text[]) AS wanted (message_id, key)
    CROSS JOIN LATERAL (
        SELECT message_id, key FROM offline_pending
        WHERE message_id = wanted.message_id AND key = wanted.key OFFSET 0
    ) p
"""
_AMONG_VALUES = """
    SELECT message_id, key FROM offline_pending WHERE (message_id, key) IN (VALUES {marks})
"""
_CROWDED = """
    SELECT wanted.key, counted.count FROM unnest(%s::text[]) AS wanted (key) CROSS JOIN LATERAL (
        SELECT count(*) FROM (
            SELECT 1 FROM offline_pending p WHERE p.key = wanted.key ORDER BY p.message_id LIMIT %s
        ) AS rows_found
    ) counted
    WHERE counted.count > %s
"""


def _pages(
    wanted: list[W], size: int, kind: str, age: float = 0.0
) -> dict[W, list[PendingMessage]]:
    found: dict[W, list[PendingMessage]] = {ask: [] for ask in wanted}
    if not found:
        return found
    asks = list(found)
    values: list[str | int] = []
    for place, (key, *ids) in enumerate(asks):
        values += [place, key, ids[0], ids[-1]]
    with connection.cursor() as cursor:
        cursor.execute(query(kind, len(asks), size, age), values)
        rows = cursor.fetchall()
    snapshot = Snapshot.parse(rows[0][-1]) if rows and rows[0][-1] else Everything()
    for place, message_id, op, body, is_json, had, had_xmin, _ in rows:
        message = PendingMessage(
            message_id, op, bytes(body), bool(is_json), had, had_xmin, snapshot
        )
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
