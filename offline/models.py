"""Messages as they were accepted, and the keys that each is still pending for.

The id comes from the database, which all nodes and API processes share: ids sort by the time of
acceptance whatever the processes' clocks say, and stay below 2**53, so that a JavaScript number
holds them.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, ClassVar

from django.db import connection, models
from django.db.models import Count, Q
from django.utils import timezone

CHUNK = 400  # rows of one statement with parameters: below SQLite's limit of them
EXPIRE_BATCH = 1000  # rows of one DELETE, so that none holds locks for long


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """One pending message as a session needs it."""

    id: int
    op: int
    body: bytes
    is_json: bool


class MessageManager(models.Manager["Message"]):
    """Stores messages and finds what is to be fanned out."""

    def store(self, messages: Sequence["Message"], keys: Sequence[Collection[str]]) -> list[int]:
        """Insert messages and, for each, a pending row for every one of its `keys`.

        Returns the ids, in the order of `messages`. Call it inside a transaction, unless
        `is_one_statement`.
        """
        if self.is_one_statement:
            return self._insert_arrays(messages, keys)
        ids = [row.pk for row in self.bulk_create(messages, batch_size=CHUNK)]
        Pending.objects.store(
            [(i, key) for i, names in zip(ids, keys, strict=True) for key in names]
        )
        return ids

    @property
    def is_one_statement(self) -> bool:
        """Whether `store` is atomic by itself."""
        return connection.vendor == "postgresql"

    @staticmethod
    def _insert_arrays(messages: Sequence["Message"], keys: Sequence[Collection[str]]) -> list[int]:
        """Messages and pending rows in one statement, with one array a column.

        It takes a third of the time of `bulk_create`, and one way to the database instead of
        four. Ids are given in the order of the SELECT; what RETURNING's order is, is not promised.
        """
        sql, fields = _insert_sql()
        columns: list[list[Any]] = [
            [field.pre_save(row, add=True) for row in messages] for field in fields
        ]
        place = [field.name for field in fields].index("keys")
        columns[place] = [None if names is None else json.dumps(names) for names in columns[place]]
        pairs = [(n, key) for n, names in enumerate(keys, 1) for key in names]
        owed: list[list[Any]] = [[n for n, _ in pairs], [key for _, key in pairs]]
        with connection.cursor() as cursor:
            cursor.execute(sql, [*columns, *owed])
            return [row[0] for row in cursor.fetchall()]

    def live(self, ids: Iterable[int]) -> list["Message"]:
        """Those of `ids` that have not expired, in order of id."""
        return list(self.filter(pk__in=ids, expires_at__gt=timezone.now()).order_by("pk"))

    def expire(self, keep: timedelta) -> int:
        """Delete one batch of messages that expired more than `keep` ago; returns how many."""
        limit = timezone.now() - keep
        ids = list(
            self.filter(expires_at__lte=limit)
            .order_by("expires_at")
            .values_list("pk", flat=True)[:EXPIRE_BATCH]
        )
        self.filter(pk__in=ids).delete()
        return len(ids)


class Message(models.Model):
    """What was accepted: one body, one id, for a key, many keys, a room or everyone."""

    class Audience(models.TextChoices):
        """Whom a message is for."""

        KEYS = "keys"
        ROOM = "room"
        ALL = "all"

    audience = models.CharField(max_length=4, choices=Audience)
    room = models.CharField(max_length=255, blank=True)
    # All it was pushed to; the pending rows say who has not had it.
    keys = models.JSONField(null=True, blank=True)
    stored = models.BooleanField(default=False)
    op = models.IntegerField(default=5)
    body = models.BinaryField()
    is_json = models.BooleanField(default=True)
    by = models.CharField(max_length=100, blank=True, help_text="Who pushed it.")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()

    objects: ClassVar[MessageManager] = MessageManager()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["expires_at"])]

    def __str__(self) -> str:
        return f"message {self.pk}"


@lru_cache(maxsize=1)
def _insert_sql() -> "tuple[str, list[models.Field[Any, Any]]]":
    """The statement of `_insert_arrays`, and the fields whose arrays it takes."""
    fields = [field for field in Message._meta.concrete_fields if not field.primary_key]
    arrays = ", ".join(f"%s::{field.db_type(connection)}[]" for field in fields)
    names = ", ".join(f'"{field.column}"' for field in fields)
    # Only names of our own columns and types are put in.
    sql = f"""
        WITH stored AS (
            INSERT INTO offline_message ({names})
            SELECT {names} FROM unnest({arrays}) WITH ORDINALITY AS given ({names}, place)
            ORDER BY place RETURNING id
        ),
        numbered AS (SELECT id, row_number() OVER (ORDER BY id) AS place FROM stored),
        owed AS (
            INSERT INTO offline_pending (message_id, key)
            SELECT id, key FROM unnest(%s::bigint[], %s::text[]) AS wanted (place, key)
            JOIN numbered USING (place)
        )
        SELECT id FROM numbered ORDER BY id
    """  # noqa: S608
    return sql, fields


class PendingManager(models.Manager["Pending"]):
    """Stores, finds, acknowledges and bounds what is pending."""

    def store(self, pairs: Sequence[tuple[int, str]]) -> None:
        """Insert a row for each (message id, key)."""
        rows = (Pending(message_id=message_id, key=key) for message_id, key in pairs)
        self.bulk_create(rows, batch_size=CHUNK)

    def page(
        self, wanted: Iterable[tuple[str, int]], size: int
    ) -> dict[tuple[str, int], list[PendingMessage]]:
        """For each (key, after): its first `size` pending messages with an id above `after`.

        One query for all that start from the same id, which in a storm of connects is all.
        """
        found: dict[tuple[str, int], list[PendingMessage]] = {pair: [] for pair in wanted}
        keys_after: dict[int, list[str]] = {}
        for key, after in found:
            keys_after.setdefault(after, []).append(key)
        for after, keys in keys_after.items():
            for row in self._first_rows(keys, after, size):
                key, message_id, op, body, is_json = row
                found[key, after].append(PendingMessage(message_id, op, bytes(body), bool(is_json)))
        return found

    @staticmethod
    def _first_rows(
        keys: list[str], after: int, size: int
    ) -> list[tuple[str, int, int, bytes, bool]]:
        """Rows (key, id, op, body, is_json) in order of key and id, `size` a key at most."""
        marks = ", ".join(["(%s)"] * len(keys))
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                WITH wanted (key) AS (VALUES {marks}),
                ranked AS (
                    SELECT p.key, p.message_id,
                           row_number() OVER (PARTITION BY p.key ORDER BY p.message_id) AS place
                    FROM offline_pending p JOIN wanted USING (key)
                    JOIN offline_message m ON m.id = p.message_id
                    WHERE p.message_id > %s AND m.expires_at > %s
                )
                SELECT r.key, m.id, m.op, m.body, m.is_json
                FROM ranked r JOIN offline_message m ON m.id = r.message_id
                WHERE r.place <= %s
                ORDER BY r.key, m.id
                """,  # noqa: S608 - only placeholders are put in
                [*keys, after, now, size],
            )
            rows: list[tuple[str, int, int, bytes, bool]] = cursor.fetchall()
            return rows

    def acknowledge(self, pairs: Sequence[tuple[int, str]]) -> int:
        """Delete the pending rows of these (message id, key); returns how many there were."""
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
        wanted = set(pairs)
        rows = self.filter(message__in={i for i, _ in wanted}, key__in={key for _, key in wanted})
        return wanted & set(rows.values_list("message_id", "key"))

    def keys_of(self, message_ids: Iterable[int]) -> dict[int, list[str]]:
        """The keys that each message is still pending for."""
        keys: dict[int, list[str]] = {}
        rows = self.filter(message__in=list(message_ids)).order_by("key")
        for message_id, key in rows.values_list("message_id", "key"):
            keys.setdefault(message_id, []).append(key)
        return keys

    def unexpired(self, key: str) -> "models.QuerySet[Pending]":
        """What is pending for `key` now."""
        return self.filter(key=key, message__expires_at__gt=timezone.now())

    def trim(self, keys: Collection[str], limit: int) -> int:
        """Drop the oldest pending messages of those `keys` that have more than `limit`."""
        dropped = 0
        names = list(keys)
        for start in range(0, len(names), CHUNK):
            crowded = (
                self.filter(key__in=names[start : start + CHUNK])
                .values("key")
                .annotate(count=Count("pk"))
                .filter(Q(count__gt=limit))
                .values_list("key", flat=True)
            )
            for key in list(crowded):
                newest = self.filter(key=key).order_by("-message_id")
                # One id, of the newest that goes; none if others were acknowledged meanwhile.
                for newest_gone in newest.values_list("message_id", flat=True)[limit : limit + 1]:
                    dropped += self.filter(key=key, message_id__lte=newest_gone).delete()[0]
        return dropped


class Pending(models.Model):
    """A message that a key has not had yet. The row goes when it has."""

    message = models.ForeignKey(Message, on_delete=models.CASCADE, db_index=False)
    key = models.CharField(max_length=255)

    objects: ClassVar[PendingManager] = PendingManager()

    class Meta:
        verbose_name_plural = "pending"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["message", "key"], name="pending_once"),
        ]
        indexes: ClassVar = [models.Index(fields=["key", "message"])]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}"
