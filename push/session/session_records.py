"""Session records: the last opening, refusal and closing of each key, one row a key.

Nodes write them in batches (`push/session/session_log.py`). They are kept for `RECORD_KEEP`
seconds, for `explain`, the API and the dashboard.
"""

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import ClassVar

import msgspec
from django.db import connection, models
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf

PRUNE_BATCH = 1_000  # rows of one DELETE, so that none holds locks for long
EVENTS = ("opened", "refused", "closed")


class SessionEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """One opening, refusal or closing.

    `at`: Unix time by the database's clock, seconds.
    `code`: the close code; 0 if the client closed the connection or lost it.
    `seconds`: how long the session was open.
    `session`: the id; "" for a refusal before the session had one.
    """

    at: float
    node: str
    transport: str
    address: str
    platform: str = ""
    session: str = ""
    code: int = 0
    reason: str = ""
    seconds: float = 0.0

    @property
    def time(self) -> datetime:
        """Return `at` as a datetime."""
        return datetime.fromtimestamp(self.at, tz=UTC)


class Row(msgspec.Struct, omit_defaults=True):
    """New events of one key; None for a kind without a new event."""

    key: str
    opened: SessionEvent | None = None
    refused: SessionEvent | None = None
    closed: SessionEvent | None = None


class SessionRecordManager(models.Manager["SessionRecord"]):
    """Writes and prunes session records."""

    def write(self, rows: list[Row]) -> None:
        """Replace the events in these rows, in one statement, in order of key.

        The order prevents a deadlock of two nodes that write the same keys.
        """
        if not rows:
            return
        # One JSON parameter: quoting four parameters a row takes Django longer than all the rest.
        data = msgspec.json.encode(sorted(rows, key=attrgetter("key"))).decode()
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(_WRITE_POSTGRES, [data])
            else:
                now = connection.ops.adapt_datetimefield_value(timezone.now())
                cursor.execute(_WRITE_SQLITE, [now, data])

    def prune(self) -> int:
        """Delete one batch of records older than `RECORD_KEEP`; return the number of rows."""
        limit = Now() - timedelta(seconds=conf.RECORD_KEEP)
        old = self.filter(updated_at__lt=limit).order_by("updated_at").values("pk")[:PRUNE_BATCH]
        return self.filter(pk__in=list(old.values_list("pk", flat=True))).delete()[0]

    def of(self, key: str) -> dict[str, SessionEvent]:
        """Return name → event of a key, with names of `EVENTS`; empty without a record."""
        row = self.filter(pk=key).values(*EVENTS).first() or {}
        return {name: msgspec.convert(value, SessionEvent) for name, value in row.items() if value}


class SessionRecord(models.Model):
    """The last events of one key's sessions, each the JSON of a `SessionEvent`."""

    key = models.CharField(max_length=255, primary_key=True)
    opened = models.JSONField(null=True)
    refused = models.JSONField(null=True)
    closed = models.JSONField(null=True)
    updated_at = models.DateTimeField(db_index=True)

    objects: ClassVar[SessionRecordManager] = SessionRecordManager()

    class Meta:
        app_label = "push"

    def __str__(self) -> str:
        return f"sessions of {self.key}"


# An event that was written late must not replace a later event of another node.
_LATER = """
        {name} = CASE WHEN EXCLUDED.{name} IS NULL OR {old_at} > {new_at}
                 THEN old.{name} ELSE EXCLUDED.{name} END"""


def _statement(source: str, at: str) -> str:
    """Return the upsert. `source`: SQL for the rows; `at`: SQL for the time of an event."""
    columns = ",".join(
        _LATER.format(
            name=name, old_at=at.format(f"old.{name}"), new_at=at.format(f"EXCLUDED.{name}")
        )
        for name in EVENTS
    )
    return f"""
        INSERT INTO push_sessionrecord AS old (key, opened, refused, closed, updated_at)
        {source}
        ON CONFLICT (key) DO UPDATE SET {columns}, updated_at = EXCLUDED.updated_at
    """


_WRITE_POSTGRES = _statement(
    """SELECT key, opened, refused, closed, statement_timestamp() FROM jsonb_to_recordset(%s::jsonb)
       AS given (key text, opened jsonb, refused jsonb, closed jsonb)""",
    "({}->>'at')::float8",
)
_WRITE_SQLITE = _statement(
    """SELECT json_extract(value, '$.key'), json_extract(value, '$.opened'),
              json_extract(value, '$.refused'), json_extract(value, '$.closed'), %s
       FROM json_each(%s) WHERE true""",
    "json_extract({}, '$.at')",
)
