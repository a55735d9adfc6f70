"""Conservation: accepted = received + acknowledged + expired + dropped + pending.

The unit is a (message, key) of a stored message whose record is kept. Each slice of ids is one
statement, which sees one moment. So the balance holds while messages are being settled.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import connection
from django.db.models import Max, Min

from offline.models import Message

SLICE = 10_000  # messages of one statement


@dataclass
class Balance:
    """Counts of (message, key). `settled`: by kind, or `dropped:<reason>`."""

    accepted: int = 0
    pending: int = 0
    settled: Counter[str] = field(default_factory=Counter)
    messages: int = 0

    @property
    def missing(self) -> int:
        """Return the number of accepted pairs without an end; negative if some have several."""
        return self.accepted - self.pending - self.settled.total()

    def add(self, other: "Balance") -> None:
        """Add the balance of another slice."""
        self.accepted += other.accepted
        self.pending += other.pending
        self.settled += other.settled
        self.messages += other.messages

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """Return the counts for JSON."""
        return {
            "messages": self.messages,
            "accepted": self.accepted,
            "pending": self.pending,
            "settled": dict(sorted(self.settled.items())),
            "missing": self.missing,
        }


def bounds(latest: int = 0) -> tuple[int, int]:
    """Return (id before the first, last id) of about the `latest` messages; 0: of all."""
    ids = Message.objects.aggregate(first=Min("pk"), last=Max("pk"))
    last = ids["last"] or 0
    first = (ids["first"] or 1) - 1
    return max(first, last - latest) if latest else first, last


def slices(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield (id before, last id) of each slice from `first` to `last`."""
    for start in range(first, last, SLICE):
        yield start, min(start + SLICE, last)


def balance_of_slice(first: int, last: int) -> Balance:
    """Return the balance of the messages with `first` < id <= `last`."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [first, last, first, last, first, last])
        balance = Balance()
        for total, count, pairs in cursor.fetchall():
            if total == "accepted":
                balance.messages, balance.accepted = count, int(pairs)
            elif total == "pending":
                balance.pending = count
            else:
                balance.settled[total] += count
        return balance


def balance_of_latest(latest: int) -> Balance:
    """Return the balance of about the `latest` messages; 0: of all."""
    total = Balance()
    for first, last in slices(*bounds(latest)):
        total.add(balance_of_slice(first, last))
    return total


def unbalanced(first: int, last: int) -> list[tuple[int, int, int]]:
    """Return (message id, accepted, accounted for) of the messages whose two counts differ."""
    with connection.cursor() as cursor:
        cursor.execute(_UNBALANCED, [first, last])
        return [(int(i), int(accepted), int(settled)) for i, accepted, settled in cursor.fetchall()]


# The kinds left out end nothing. Messages past `keep_until` are left out too: pruning deletes their
# events first.
_COUNT = """
    WITH kept AS (
        SELECT id, recipients FROM offline_message
        WHERE id > %s AND id <= %s AND stored AND keep_until > CURRENT_TIMESTAMP
    )
    SELECT 'accepted' AS what, count(*), coalesce(sum(recipients), 0) FROM kept
    UNION ALL
    SELECT 'pending', count(*), 0 FROM offline_pending p JOIN kept ON kept.id = p.message_id
    WHERE p.message_id > %s AND p.message_id <= %s
    UNION ALL
    SELECT CASE WHEN e.reason = '' THEN e.kind ELSE e.kind || ':' || e.reason END, count(*), 0
    FROM offline_event e JOIN kept ON kept.id = e.message_id
    WHERE e.message_id > %s AND e.message_id <= %s
      AND e.kind NOT IN ('sent', 'notified', 'notify_failed', 'notify_closed')
    GROUP BY 1
"""
_UNBALANCED = """
    SELECT id, recipients, found FROM (
        SELECT m.id, m.recipients,
               (SELECT count(*) FROM offline_pending p WHERE p.message_id = m.id)
               + (SELECT count(*) FROM offline_event e
                  WHERE e.message_id = m.id AND e.kind NOT IN
                    ('sent', 'notified', 'notify_failed', 'notify_closed')) AS found
        FROM offline_message m
        WHERE m.id > %s AND m.id <= %s AND m.stored AND m.keep_until > CURRENT_TIMESTAMP
    ) AS counted
    WHERE recipients <> found ORDER BY id
"""
