"""Pages of a key's messages: what is pending, and what its sessions have had.

On Postgres each key's rows are read from an index and no further than its page, however many
there are: the joins are written so that no other plan is possible. Statistics of tables that are
filled and emptied all day say little, and a plan that reads a whole table would be chosen.
"""

from collections.abc import Mapping
from datetime import timedelta

from django.db import connection
from django.utils import timezone

LATELY_MAX = 2_000  # of a key's latest events, which are searched for those of the last seconds

# The first message of each partition that is not fanned out. An index gives it, one partition
# after the other.
FIRSTS = """
    firsts (partition, message_id, created_at) AS (
        (SELECT partition, message_id, created_at FROM offline_outbox WHERE parked_at IS NULL
         ORDER BY partition, message_id LIMIT 1)
        UNION ALL
        SELECT next.* FROM firsts CROSS JOIN LATERAL (
            SELECT o.partition, o.message_id, o.created_at FROM offline_outbox o
            WHERE o.parked_at IS NULL AND o.partition > firsts.partition
            ORDER BY o.partition, o.message_id LIMIT 1
        ) next
    )
"""

# For one row `w` of what is wanted: (message_id, seconds since it was had, xmin of that event), at
# most a page.
_PENDING = """
    (SELECT p.message_id, {no_age} AS had, {no_xmin} AS had_xmin FROM offline_pending p
     WHERE p.key = w.key AND p.message_id > greatest(w.after, w.since) AND p.expires_at > {now}
     ORDER BY p.message_id LIMIT {size})
"""
# Messages behind the first one that is not fanned out are on their way, or soon will be.
_LONG_PENDING = """
    (SELECT p.message_id, {no_age} AS had, {no_xmin} AS had_xmin FROM offline_pending p
     WHERE p.key = w.key AND p.message_id > w.after AND p.expires_at > {now}
           AND p.message_id < coalesce((SELECT min(message_id) FROM firsts), 9223372036854775807)
           AND (SELECT created_at FROM offline_message m WHERE m.id = p.message_id) < {then}
     ORDER BY p.message_id LIMIT {size})
"""
_HAD = """
    (SELECT e.message_id, {no_age} AS had, {no_xmin} AS had_xmin FROM offline_event e
     WHERE e.key = w.key AND e.message_id > greatest(w.after, w.since)
           AND e.kind IN ('received', 'acknowledged')
           AND (SELECT expires_at FROM offline_message m WHERE m.id = e.message_id) > {now}
     ORDER BY e.message_id LIMIT {size})
"""
_HAD_LATELY = """
    (SELECT e.message_id, CAST(extract(epoch FROM {now} - e.at) AS double precision) AS had,
            e.had_xmin
     FROM (SELECT * FROM (SELECT message_id, kind, at, xmin::text::bigint AS had_xmin
                          FROM offline_event
                          WHERE key = w.key AND message_id > w.after
                          ORDER BY message_id DESC LIMIT {lately}) latest
           WHERE latest.at > {then} AND latest.kind IN ('received', 'acknowledged')
           ORDER BY latest.message_id OFFSET 0) e
     WHERE (SELECT expires_at FROM offline_message m WHERE m.id = e.message_id) > {now}
     ORDER BY e.message_id LIMIT {size})
"""
_BOUNDED: Mapping[str, str] = {
    "pending": _PENDING,
    "long pending": _LONG_PENDING,
    "history": f"{_PENDING} UNION {_HAD}",
    "lately": f"{_PENDING} UNION {_HAD_LATELY}",
}
# OFFSET 0 keeps the look-ups by id from becoming a join, which could read the whole table.
_BOUNDED_QUERY = """
    WITH RECURSIVE wanted (place, key, after, since) AS (VALUES {marks}), {firsts},
    found AS (
        SELECT w.place, page.message_id, page.had, page.had_xmin,
               row_number() OVER (PARTITION BY w.place ORDER BY page.message_id) AS number
        FROM wanted w CROSS JOIN LATERAL ({source}) page
    )
    SELECT f.place, m.id, m.op, m.body, m.is_json, f.had, f.had_xmin,
           pg_current_snapshot()::text
    FROM found f CROSS JOIN LATERAL (
        SELECT id, op, body, is_json FROM offline_message WHERE id = f.message_id OFFSET 0
    ) m
    WHERE f.number <= {size} ORDER BY f.place, m.id
"""

# The same for SQLite, which knows no LATERAL and holds one server's messages.
_ROWS: Mapping[str, str] = {
    "pending": """
        SELECT w.place, p.message_id, NULL AS had FROM wanted w JOIN offline_pending p USING (key)
        WHERE p.message_id > w.after AND p.message_id > w.since AND p.expires_at > {now}""",
    "long pending": """
        SELECT w.place, p.message_id, NULL AS had FROM wanted w JOIN offline_pending p USING (key)
        JOIN offline_message m ON m.id = p.message_id
        WHERE p.message_id > w.after AND p.expires_at > {now} AND m.created_at < {then}
              AND NOT EXISTS (SELECT 1 FROM offline_outbox o
                              WHERE o.message_id = p.message_id AND o.parked_at IS NULL)""",
    "had": """
        SELECT w.place, e.message_id, NULL AS had FROM wanted w JOIN offline_event e USING (key)
        JOIN offline_message m ON m.id = e.message_id
        WHERE e.message_id > w.after AND e.message_id > w.since AND m.expires_at > {now}
              AND e.kind IN ('received', 'acknowledged')""",
    "had lately": """
        SELECT w.place, e.message_id, (julianday({now}) - julianday(e.at)) * 86400 AS had
        FROM wanted w JOIN offline_event e USING (key)
        JOIN offline_message m ON m.id = e.message_id
        WHERE e.message_id > w.after AND m.expires_at > {now} AND e.at > {then}
              AND e.kind IN ('received', 'acknowledged')""",
}
_SQLITE: Mapping[str, str] = {
    "pending": _ROWS["pending"],
    "long pending": _ROWS["long pending"],
    "history": f"{_ROWS['pending']} UNION {_ROWS['had']}",
    "lately": f"{_ROWS['pending']} UNION {_ROWS['had lately']}",
}
_SQLITE_QUERY = """
    WITH wanted (place, key, after, since) AS (VALUES {marks}),
    found AS ({source}),
    ranked AS (
        SELECT place, message_id, had,
               row_number() OVER (PARTITION BY place ORDER BY message_id) AS number
        FROM found
    )
    SELECT r.place, m.id, m.op, m.body, m.is_json, r.had, NULL, NULL
    FROM ranked r JOIN offline_message m ON m.id = r.message_id
    WHERE r.number <= {size} ORDER BY r.place, m.id
"""


def query(kind: str, count: int, size: int, age: float) -> str:
    """Return the SQL for `count` rows (place, key, after, since) of parameters.

    `kind`: "pending"; "long pending", for more than `age` seconds and not to be fanned out;
    "history": also what sessions have had; "lately": also what they have had in the last `age`
    seconds. `size`: messages of each page.
    """
    marks = ", ".join(["(%s, %s, CAST(%s AS bigint), CAST(%s AS bigint))"] * count)
    # The database's time where there is more than one process: their clocks may differ.
    if connection.vendor == "postgresql":
        now = "statement_timestamp()"
        source = _BOUNDED[kind].format(
            now=now,
            then=f"{now} - interval '{age:f} seconds'",
            no_age="CAST(NULL AS double precision)",
            no_xmin="CAST(NULL AS bigint)",
            size=int(size),
            lately=LATELY_MAX,
        )
        return _BOUNDED_QUERY.format(marks=marks, firsts=FIRSTS, source=source, size=int(size))
    moment = timezone.now()
    now, then = (
        f"'{connection.ops.adapt_datetimefield_value(time)}'"
        for time in (moment, moment - timedelta(seconds=age))
    )
    source = _SQLITE[kind].format(now=now, then=then)
    return _SQLITE_QUERY.format(marks=marks, source=source, size=int(size))
