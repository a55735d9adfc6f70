"""Storing of messages on Postgres in one round trip, with a trace to query its outcome later."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.db import connection

from imgo_site.conf import conf
from imgo_site.postgres.connection import Connection
from imgo_site.postgres.outcome import SERVER, Trace
from offline.values import DedupeTable, NewMessage, Stored

LOCK_CLASS = 0x696D_676F  # "imgo": the first half of our advisory locks' names
ACCEPTING = -2  # the second half of the lock that each transaction shares that stores messages


def insert(
    messages: Sequence[NewMessage],
    dedupe: DedupeTable | None,
    begin: str,
    devices: Mapping[str, Sequence[str]],
) -> Stored:
    """Insert messages, their pending rows, and their outbox rows, as `Dialect.insert` describes.

    Messages are sent as one JSON text in one statement: an array for each column would cost ten
    times the Python. One message to at most one key is sent in statements of one row each, which
    cost half of the Postgres.
    """
    if dedupe is not None and not any(new.dedupe_id for new in messages):
        dedupe = None
    is_timed = any(new.is_timed for new in messages)
    if dedupe is None and not is_timed and len(messages) == 1 and len(messages[0].keys) < 2:
        sql, values = _for_one(messages[0], devices)
        ([(message_id, at)], *queued), trace = _execute(begin, sql, values)
        partitions = queued[0][0][0] if queued else conf.PARTITIONS
        return Stored([message_id], [True], partitions, trace, at)
    parts = {"claims": "", "new": "given", "answer": _ANSWER, "current": _CURRENT}
    if dedupe is not None:
        claims = _CLAIMS.format(table=dedupe.name, window=float(dedupe.window))
        parts |= {"claims": claims, "new": "claimed", "answer": _ANSWER_CLAIMED}
    if is_timed:
        later = _LATER.format(new=parts["new"])
        parts |= {**_TIMED, "claims": parts["claims"] + later, "new": "at_once"}
    else:
        parts |= dict.fromkeys(_TIMED, "")
    has_many = any(len(new.hashes) > 1 for new in messages)
    parts["spread"] = "DISTINCT" if has_many else ""
    values = [conf.RECORD_KEEP, msgspec.json.encode(messages).decode(), conf.PARTITIONS]
    if devices:
        parts |= {name: part.format(new=parts["new"]) for name, part in _OF_DEVICES.items()}
        pairs = [(key, name) for key, names in devices.items() for name in names]
        values = [[key for key, _ in pairs], [name for _, name in pairs], *values]
    else:
        parts |= {name: part.format(new=parts["new"]) for name, part in _OF_KEYS.items()}
    sql = _INSERT.format(**parts)
    ([(ids, is_new, partitions, at)],), trace = _execute(begin, sql, values)
    return Stored(ids, is_new or [True] * len(ids), partitions, trace, at)


def _for_one(new: NewMessage, devices: Mapping[str, Sequence[str]]) -> tuple[str, list[Any]]:
    """Return statements of one row each for one message, and their values."""
    keys = json.dumps(new.keys) if new.audience == "keys" else None
    receivers = new.receivers(devices)
    sql = _MESSAGE
    values: list[Any] = [new.audience, new.room, keys, new.stored, new.op, new.body]
    values += [new.is_json, new.by, new.sender, new.ensure, new.speed, len(receivers)]
    values += [new.ttl, max(new.ttl, conf.RECORD_KEEP), new.exclude]
    values += [new.collapse_key, new.version]
    for key, device in receivers:
        sql += _PENDING_OF_DEVICE if device else _PENDING
        values += [key, new.ttl, device] if device else [key, new.ttl]
    for number in new.hashes:
        sql += _OUTBOX
        values += [number, new.origin, new.exclude, conf.PARTITIONS]
    return sql, values


def _execute(begin: str, sql: str, values: list[Any]) -> tuple[list[list[Any]], Trace]:
    """Run statements; the first row's last column is the transaction's id.

    Returns the rows of each statement that returns any, without that column, and the trace of the
    transaction. `begin`: statements before these.
    """
    connection.ensure_connection()
    raw = connection.connection
    server: tuple[int, str] | None = getattr(raw, "server", None)
    results: list[list[Any]] = []
    with connection.cursor() as cursor:
        cursor.execute(begin + _LOCK + (sql if server else sql + SERVER), values)
        has_more: bool | None = True
        while has_more:
            if cursor.description:
                results.append(cursor.fetchall())
            has_more = cursor.nextset()
    _, [(*row, xid)], *others = results
    if not server:
        (server,) = others.pop()
    if isinstance(raw, Connection):
        raw.server = server
    return [[row], *others], Trace(xid, *server)


# The statements after it read the number of partitions: see `offline/repartitioning.py`.
_LOCK = f"SELECT pg_advisory_xact_lock_shared({LOCK_CLASS}, {ACCEPTING});"
# The number of partitions; the parameter is that of the settings, which holds without a row.
_CURRENT = """
    SELECT coalesce(last.generation, 0) AS generation,
           coalesce(last.partitions, settings.partitions) AS partitions
    FROM (VALUES (%s)) AS settings (partitions) LEFT JOIN (
        SELECT generation, partitions FROM offline_partitioning ORDER BY generation DESC LIMIT 1
    ) AS last ON true
"""

# All statements of one round trip have the same statement_timestamp().
_MESSAGE = """
    INSERT INTO offline_message (audience, room, keys, stored, op, body, is_json, by, sender,
                                 ensure, speed, recipients, created_at, expires_at, keep_until,
                                 exclude, collapse_key, version)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, statement_timestamp(),
            statement_timestamp() + %s * interval '1 second',
            statement_timestamp() + %s * interval '1 second', %s, %s, %s)
    RETURNING id, created_at, pg_current_xact_id()::text;
"""
_PENDING = """
    INSERT INTO offline_pending (message_id, key, expires_at)
    VALUES (currval('offline_message_id_seq'), %s,
            statement_timestamp() + %s * interval '1 second');
"""
_PENDING_OF_DEVICE = """
    INSERT INTO offline_pending (message_id, key, expires_at, device)
    VALUES (currval('offline_message_id_seq'), %s,
            statement_timestamp() + %s * interval '1 second', %s);
"""
_OUTBOX = f"""
    INSERT INTO offline_outbox (message_id, partition, partitions, generation, created_at, attempts,
                                error, origin, exclude)
    SELECT currval('offline_message_id_seq'), mod(%s, current.partitions), current.partitions,
           current.generation, statement_timestamp(), 0, '', %s, %s
    FROM ({_CURRENT}) AS current
    RETURNING partitions;
"""  # noqa: S608 - constants

# The ids are drawn before the rows are stored, so that a dedupe id and its message can be stored
# together. The ids have the order of the messages. The JSON's names are the fields of NewMessage.
_INSERT = """
    WITH {devices} given AS MATERIALIZED (
        SELECT nextval('offline_message_id_seq') AS id, statement_timestamp() AS created_at,
               statement_timestamp() + ttl * interval '1 second' AS expires_at,
               statement_timestamp() + greatest(ttl, %s) * interval '1 second' AS keep_until,
               {due} given.*
        FROM ROWS FROM (
            json_to_recordset(%s) AS (
                audience text, room text, keys jsonb, stored boolean, op integer, body text,
                is_json boolean, by text, ensure boolean, speed integer, ttl float8,
                hashes bigint[], origin text, dedupe_id text, sender text, exclude text,
                collapse_key text, version bigint
                {types})
        ) WITH ORDINALITY AS given (audience, room, keys, stored, op, body, is_json, by, ensure,
                                    speed, ttl, hashes, origin, dedupe_id, sender, exclude,
                                    collapse_key, version, {names} place)
    ),
    {claims}
    stored AS (
        INSERT INTO offline_message (id, audience, room, keys, stored, op, body, is_json, by,
                                     sender, ensure, speed, recipients, created_at, expires_at,
                                     keep_until, exclude, collapse_key, version)
        SELECT id, audience, room, CASE WHEN audience = 'keys' THEN keys END, stored, op,
               decode(body, 'base64'), is_json, by, sender, ensure, speed,
               CASE WHEN stored THEN {count} ELSE 0 END,
               created_at, expires_at, keep_until, exclude, collapse_key, version
        FROM {new}
    ),
    owed AS ({owed}),
    current AS ({current}),
    queued AS (
        INSERT INTO offline_outbox (message_id, partition, partitions, generation, created_at,
                                    attempts, error, origin, exclude)
        SELECT id, its.partition, current.partitions, current.generation, created_at, 0, '', origin,
               exclude
        FROM {new} CROSS JOIN current CROSS JOIN LATERAL (
            SELECT {spread} mod(hash, current.partitions) AS partition FROM unnest(hashes) AS hash
        ) its
    )
    {answer};
"""

# What depends on the scope of the keys: a row for each key, or for each device of those that have
# any.
_OF_KEYS = {
    "devices": "",
    "count": "jsonb_array_length(keys)",
    "owed": """
        INSERT INTO offline_pending (message_id, key, expires_at)
        SELECT id, key, expires_at FROM {new}, jsonb_array_elements_text(keys) AS key WHERE stored
    """,
}
_OF_DEVICES = {
    "devices": """
    devices AS MATERIALIZED (
        SELECT * FROM unnest(%s::text[], %s::text[]) AS d (key, name)
    ),
    """,
    "count": """(
        SELECT count(*) FROM jsonb_array_elements_text(keys) AS k (key)
        LEFT JOIN devices d ON d.key = k.key
    )""",
    "owed": """
        INSERT INTO offline_pending (message_id, key, expires_at, device)
        SELECT id, k.key, expires_at, coalesce(d.name, '')
        FROM {new} CROSS JOIN jsonb_array_elements_text(keys) AS k (key)
        LEFT JOIN devices d ON d.key = k.key
        WHERE stored
    """,
}

# Additions for messages that name a time. One in the past is now.
_TIMED = {
    "due": "coalesce(send_at, statement_timestamp() + send_in * interval '1 second') AS due_at,",
    "types": ", send_at timestamptz, send_in float8",
    "names": "send_at, send_in,",
}
_LATER = """
    later AS (
        INSERT INTO offline_scheduledpush (id, due_at, created_at, audience, room, keys, stored, op,
                                           body, is_json, by, ensure, speed, ttl, origin, exclude,
                                           collapse_key, version)
        SELECT id, due_at, created_at, audience, room, CASE WHEN audience = 'keys' THEN keys END,
               stored, op, decode(body, 'base64'), is_json, by, ensure, speed, ttl, origin, exclude,
               collapse_key, version
        FROM {new} WHERE due_at > created_at
    ),
    at_once AS (SELECT * FROM {new} WHERE due_at IS NULL OR due_at <= created_at),
"""

_ANSWER = """
    SELECT array_agg(id ORDER BY place), NULL, (SELECT partitions FROM current), min(created_at),
           pg_current_xact_id()::text
    FROM given
"""

# The statement waits for another transaction that is storing the same dedupe id. It uses DO UPDATE,
# because DO NOTHING returns no row, and the other's row is too new for this statement to select.
# The rows are sorted, so that two arrays at once cannot deadlock.
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
    SELECT array_agg(message_id ORDER BY place), array_agg(message_id = id ORDER BY place),
           (SELECT partitions FROM current), min(created_at), pg_current_xact_id()::text
    FROM answered
"""
