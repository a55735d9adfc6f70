"""Storing messages on Postgres: one statement, and what is needed to learn its fate."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from imgo_site.conf import conf
from imgo_site.postgres.connection import Connection
from imgo_site.postgres.outcome import SYSTEM, TRACE, Outcome, Trace, find_out
from offline.messages import NewMessage, recipients_of


@dataclass(frozen=True, slots=True)
class Stored:
    """What a statement stored, in the order of the messages.

    `ids`: of a message whose dedupe id was used before, the first one's id. `is_new`: whether
    this statement stored the message. `at`: the time that its rows carry. `trace` and `at` are
    None where there is no question to ask later: on SQLite.
    """

    ids: list[int]
    is_new: list[bool]
    trace: Trace | None = None
    at: datetime | None = None

    def find_out(self) -> Outcome:
        """Ask what became of the transaction, after the answer to its COMMIT was lost."""
        new = [
            message_id for message_id, is_new in zip(self.ids, self.is_new, strict=True) if is_new
        ]
        if not new:
            return Outcome.COMMITTED  # by those that stored them
        if self.trace is None:
            return Outcome.UNKNOWN
        return find_out(self.trace, _PROOF, [new[0], self.at])


@dataclass(frozen=True, slots=True)
class DedupeTable:
    """Where dedupe ids are kept, and for how long: `window`, seconds."""

    name: str
    window: float


def insert(
    messages: Sequence[NewMessage],
    partitions: int,
    dedupe: DedupeTable | None = None,
    begin: str = "",
) -> Stored:
    """Insert messages, what is pending for their keys, and what is to be fanned out.

    One statement and one round trip, and a third of the time that `bulk_create` takes: arrays,
    one a column. A message whose dedupe id its caller used within the window is not stored
    again. The same dedupe id must not occur twice. `partitions`: how many there are. `dedupe`:
    None ignores dedupe ids. `begin`: statements that run before, in the same round trip.
    """
    connection.ensure_connection()
    # The server reads a file for it: it is asked once a connection.
    system = getattr(connection.connection, "system", 0)
    trace = TRACE.format(system=f"{system:d}::bigint" if system else SYSTEM)
    if dedupe is not None and any(new.dedupe_id for new in messages):
        claims = _CLAIMS.format(table=dedupe.name, window=float(dedupe.window))
        sql = _INSERT.format(claims=claims, new="claimed", answer=_ANSWER_CLAIMED, trace=trace)
    else:
        sql = _INSERT.format(claims="", new="given", answer=_ANSWER, trace=trace)
    with connection.cursor() as cursor:
        cursor.execute(begin + sql, _columns(messages, partitions))
        while cursor.nextset():
            pass
        ids, is_new, at, xid, system, timeline = cursor.fetchone()
    if isinstance(connection.connection, Connection):
        connection.connection.system = system
    return Stored(ids, is_new or [True] * len(ids), Trace(xid, system, timeline), at)


def _columns(messages: Sequence[NewMessage], partitions: int) -> list[Any]:
    numbered = list(enumerate(messages, 1))
    owed = [(n, key) for n, new in numbered if new.stored for key in new.keys]
    queued = [(n, partition, new.origin) for n, new in numbered for partition in new.partitions]
    return [
        conf.RECORD_KEEP,
        [new.audience for new in messages],
        [new.room for new in messages],
        [json.dumps(new.keys) if new.audience == "keys" else None for new in messages],
        [new.stored for new in messages],
        [new.op for new in messages],
        [new.body for new in messages],
        [new.is_json for new in messages],
        [new.by for new in messages],
        [new.ensure for new in messages],
        [new.speed for new in messages],
        [recipients_of(new) for new in messages],
        [new.ttl for new in messages],
        [new.dedupe_id for new in messages],
        [n for n, _ in owed],
        [key for _, key in owed],
        partitions,
        [n for n, _, _ in queued],
        [partition for _, partition, _ in queued],
        [origin for _, _, origin in queued],
    ]


# The ids are drawn before the rows are stored, so that a dedupe id and its message can be stored
# together. They are in the order of the messages.
_INSERT = """
    WITH given AS MATERIALIZED (
        SELECT nextval('offline_message_id_seq') AS id, statement_timestamp() AS created_at,
               statement_timestamp() + ttl * interval '1 second' AS expires_at,
               statement_timestamp() + greatest(ttl, %s) * interval '1 second' AS keep_until,
               columns.*
        FROM unnest(%s::text[], %s::text[], %s::jsonb[], %s::boolean[], %s::integer[],
                    %s::bytea[], %s::boolean[], %s::text[], %s::boolean[], %s::integer[],
                    %s::integer[], %s::float8[], %s::text[])
             WITH ORDINALITY AS columns (audience, room, keys, stored, op, body, is_json, by,
                                         ensure, speed, recipients, ttl, dedupe_id, place)
    ),
    {claims}
    stored AS (
        INSERT INTO offline_message (id, audience, room, keys, stored, op, body, is_json, by,
                                     ensure, speed, recipients, created_at, expires_at, keep_until)
        SELECT id, audience, room, keys, stored, op, body, is_json, by, ensure, speed, recipients,
               created_at, expires_at, keep_until
        FROM {new} ORDER BY place
    ),
    owed AS (
        INSERT INTO offline_pending (message_id, key, expires_at)
        SELECT id, key, expires_at
        FROM unnest(%s::bigint[], %s::text[]) AS wanted (place, key) JOIN {new} USING (place)
    ),
    queued AS (
        INSERT INTO offline_outbox (message_id, partition, partitions, created_at, attempts, error,
                                    origin)
        SELECT id, partition, %s, created_at, 0, '', origin
        FROM unnest(%s::bigint[], %s::integer[], %s::text[]) AS parts (place, partition, origin)
        JOIN {new} USING (place)
    )
    SELECT {answer}, (SELECT min(created_at) FROM given), {trace}
"""

_ANSWER = "(SELECT array_agg(id ORDER BY place) FROM given), NULL"

# A dedupe id that another transaction is storing is waited for. DO UPDATE, because DO NOTHING
# returns no row, and the other's row is too new for this statement to select. In one order for
# all: two arrays at once must not wait for each other.
_CLAIMS = """
    kept AS (
        INSERT INTO {table} AS known (by, dedupe_id, message_id, created_at)
        SELECT by, dedupe_id, id, created_at FROM given WHERE dedupe_id <> '' ORDER BY dedupe_id
        ON CONFLICT (by, dedupe_id) DO UPDATE SET
            message_id = CASE WHEN known.created_at > excluded.created_at - interval '{window} s'
                              THEN known.message_id ELSE excluded.message_id END,
            created_at = CASE WHEN known.created_at > excluded.created_at - interval '{window} s'
                              THEN known.created_at ELSE excluded.created_at END
        RETURNING dedupe_id, message_id
    ),
    answered AS MATERIALIZED (
        SELECT given.*, coalesce(kept.message_id, given.id) AS message_id
        FROM given LEFT JOIN kept USING (dedupe_id)
    ),
    claimed AS (SELECT * FROM answered WHERE message_id = id),
"""
_ANSWER_CLAIMED = """
    (SELECT array_agg(message_id ORDER BY place) FROM answered),
    (SELECT array_agg(message_id = id ORDER BY place) FROM answered)"""

_PROOF = "SELECT 1 FROM offline_message WHERE id = %s AND created_at = %s"
