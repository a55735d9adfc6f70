"""What happened to stored messages on their way to each key: the record of a push.

A (message, key) that was accepted is pending until exactly one event settles it: the transaction
that deletes its pending row inserts that event. So accepted = settled + pending, always.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple

from django.db import connection, models, transaction
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils import timezone

from offline.messages import CHUNK, Message


class Receipt(NamedTuple):
    """What a node tells of one delivery. `age`: seconds since it happened.

    `kind`: `sent` to a session that acknowledges itself; `received` by the kernel for one that
    cannot; `acknowledged` by the client.
    """

    message_id: int
    key: str
    kind: str
    session: str
    age: float = 0.0


class Had(NamedTuple):
    """When a session has had a message: seconds ago, and the `xmin` of the event that says so.

    `xmin`: 0 on SQLite; None while the message is pending.
    """

    age: float
    xmin: int | None


class EventManager(models.Manager["Event"]):
    """Writes events together with what they settle."""

    def record(self, receipts: Sequence[Receipt], *, again: bool = False) -> int:
        """Note deliveries, and settle what they acknowledge; returns how many were pending.

        The first `received` or `acknowledged` of a (message, key) settles it. Further ones are
        noted as `sent`, or, acknowledgements, not at all.

        `again`: Postgres may have carried out an earlier call with some of these, whose answer was
        lost. A delivery to a session that is noted already is not noted a second time. On SQLite
        no answer is lost.
        """
        if not receipts:
            return 0
        if connection.vendor == "postgresql":
            return self._record_arrays(receipts, _RECORD_AGAIN if again else _RECORD)
        from offline.pendings import Pending

        with transaction.atomic():
            owed = Pending.objects.among((r.message_id, r.key) for r in receipts if r.kind != SENT)
            Pending.objects.remove(sorted(owed))
            settled = len(owed)
            events = []
            now = timezone.now()
            for receipt in receipts:
                pair, kind = (receipt.message_id, receipt.key), receipt.kind
                if kind != SENT and pair not in owed:
                    if kind == ACKNOWLEDGED:
                        continue
                    kind = SENT
                elif kind != SENT:
                    owed.discard(pair)
                at = now - timedelta(seconds=receipt.age)
                events.append(
                    Event(
                        message_id=pair[0], key=pair[1], kind=kind, session=receipt.session, at=at
                    )
                )
            self.bulk_create(events, batch_size=CHUNK)
        return settled

    @staticmethod
    def _record_arrays(receipts: Sequence[Receipt], statement: str) -> int:
        with connection.cursor() as cursor:
            cursor.execute(statement, [list(column) for column in zip(*receipts, strict=True)])
            count: int = cursor.fetchone()[0]
            return count

    def receipts(self, pairs: Collection[tuple[int, str]]) -> dict[tuple[int, str], Had]:
        """Return for those of these (message id, key) that a session has had, since when.

        By the database's clock.
        """
        wanted = list(set(pairs))
        found: dict[tuple[int, str], Had] = {}
        xmin = RawSQL("xmin::text::bigint", [])
        if connection.vendor != "postgresql":
            xmin = RawSQL("0", [])
        for start in range(0, len(wanted), CHUNK):
            chunk = set(wanted[start : start + CHUNK])
            rows = self.filter(
                message__in={i for i, _ in chunk},
                key__in={key for _, key in chunk},
                kind__in=(RECEIVED, ACKNOWLEDGED),
            )
            for message_id, key, at, now, had_xmin in rows.annotate(
                now=Now(), had_xmin=xmin
            ).values_list("message_id", "key", "at", "now", "had_xmin"):
                if (message_id, key) in chunk:
                    age = max(0.0, (now - at).total_seconds())
                    found[message_id, key] = Had(age, had_xmin)
        return found

    def settle(self, rows: Iterable[tuple[int, str]], kind: str, reason: str = "") -> None:
        """Note how these (message id, key), whose pending rows are being deleted, ended."""
        now = timezone.now()
        self.bulk_create(
            (
                Event(message_id=message_id, key=key, kind=kind, reason=reason, at=now)
                for message_id, key in rows
            ),
            batch_size=CHUNK,
        )


class Event(models.Model):
    """One step of a message on its way to a key."""

    class Kind(models.TextChoices):
        """`SENT` may come often; each of the others once, as the last word on (message, key)."""

        SENT = "sent"
        RECEIVED = "received", "received by the kernel of an open session"
        ACKNOWLEDGED = "acknowledged", "acknowledged by the client"
        EXPIRED = "expired"
        DROPPED = "dropped"

    message = models.ForeignKey(
        Message, on_delete=models.DO_NOTHING, db_constraint=False, related_name="events"
    )
    key = models.CharField(max_length=255)
    kind = models.CharField(max_length=12, choices=Kind)
    session = models.CharField(max_length=40, blank=True)
    reason = models.CharField(max_length=40, blank=True)
    at = models.DateTimeField()

    objects: ClassVar[EventManager] = EventManager()

    class Meta:
        app_label = "offline"
        indexes: ClassVar = [models.Index(fields=["key", "message"], name="event_key")]

    def __str__(self) -> str:
        return f"message {self.message_id} for {self.key}: {self.kind}"


SENT, ACKNOWLEDGED = str(Event.Kind.SENT), str(Event.Kind.ACKNOWLEDGED)
RECEIVED = str(Event.Kind.RECEIVED)

# Rows are locked in one order, so that two nodes that settle the same ones do not wait for each
# other in a circle.
_STATEMENT = """
    WITH given AS (
        SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::float8[])
            WITH ORDINALITY AS rows (message_id, key, kind, session, age, place)
    ),
    owed AS (
        SELECT p.id FROM offline_pending p
        JOIN (SELECT DISTINCT message_id, key FROM given WHERE kind <> 'sent') g
            USING (message_id, key)
        ORDER BY p.id FOR UPDATE OF p
    ),
    gone AS (
        DELETE FROM offline_pending p USING owed WHERE p.id = owed.id
        RETURNING p.message_id, p.key
    ),
    settling AS (
        SELECT min(place) AS place FROM given JOIN gone USING (message_id, key)
        WHERE kind <> 'sent' GROUP BY message_id, key
    ),
    noted AS (
        INSERT INTO offline_event (message_id, key, kind, session, reason, at)
        SELECT message_id, key, CASE WHEN s.place IS NULL THEN 'sent' ELSE kind END, session, '',
               statement_timestamp() - age * interval '1 second'
        FROM given LEFT JOIN settling s USING (place)
        WHERE {noted}
        ORDER BY given.place
    )
    SELECT count(*) FROM gone
"""
_RECORD = _STATEMENT.format(noted="s.place IS NOT NULL OR kind <> 'acknowledged'")
# A statement of its own: the usual one need not look for what is noted. Only a receipt that was
# written before finds its pending row gone and its session's delivery noted.
_RECORD_AGAIN = _STATEMENT.format(
    noted="""s.place IS NOT NULL OR kind <> 'acknowledged' AND NOT EXISTS (
            SELECT 1 FROM offline_event e
            WHERE e.message_id = given.message_id AND e.key = given.key
                AND e.session = given.session AND e.kind IN ('sent', 'received')
        )"""
)
