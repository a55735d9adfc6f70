"""Pages of a key's messages on Postgres: pending ones, and those that its sessions have had.

Each key's rows are read from an index, and no further than its page. The joins are written so that
no other plan is possible. These tables are filled and emptied all day, so their statistics are
unreliable, and Postgres could choose a plan that reads a whole table.
"""

from collections.abc import Mapping

from offline.sql.base import PageKind

LATELY_MAX = 2_000  # latest events of a key that are searched for those of the last seconds

# The first message of each partition that is not fanned out yet, from an index, one partition
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

# For one row `w` of the requested pages: (message_id, seconds since a session had the message, xmin
# of the event that records it), at most a page.
_PENDING = """
    (SELECT p.message_id, {no_age} AS had, {no_xmin} AS had_xmin FROM offline_pending p
     WHERE p.key = w.key {of_device}
           AND p.message_id > greatest(w.after, w.since) AND p.expires_at > {now}
     ORDER BY p.message_id LIMIT {size})
"""
# Messages from the first one on that is not fanned out yet are left out: their fan-out is due.
_LONG_PENDING = """
    (SELECT p.message_id, {no_age} AS had, {no_xmin} AS had_xmin FROM offline_pending p
     WHERE p.key = w.key {of_device} AND p.message_id > w.after AND p.expires_at > {now}
           AND p.message_id < coalesce((SELECT min(message_id) FROM firsts), 9223372036854775807)
           AND (SELECT created_at FROM offline_message m WHERE m.id = p.message_id) < {then}
     ORDER BY p.message_id LIMIT {size})
"""
_HAD = """
    (SELECT e.message_id, {no_age} AS had, {no_xmin} AS had_xmin FROM offline_event e
     WHERE e.key = w.key {by_device} AND e.message_id > greatest(w.after, w.since)
           AND e.kind IN ('received', 'acknowledged')
           AND (SELECT expires_at FROM offline_message m WHERE m.id = e.message_id) > {now}
     ORDER BY e.message_id LIMIT {size})
"""
_HAD_LATELY = """
    (SELECT e.message_id, CAST(extract(epoch FROM {now} - e.at) AS double precision) AS had,
            e.had_xmin
     FROM (SELECT * FROM (SELECT message_id, kind, at, xmin::text::bigint AS had_xmin
                          FROM offline_event
                          WHERE key = w.key {by_device_lately} AND message_id > w.after
                          ORDER BY message_id DESC LIMIT {lately}) latest
           WHERE latest.at > {then} AND latest.kind IN ('received', 'acknowledged')
           ORDER BY latest.message_id OFFSET 0) e
     WHERE (SELECT expires_at FROM offline_message m WHERE m.id = e.message_id) > {now}
     ORDER BY e.message_id LIMIT {size})
"""
_SOURCES: Mapping[PageKind, str] = {
    "pending": _PENDING,
    "long pending": _LONG_PENDING,
    "history": f"{_PENDING} UNION {_HAD}",
    "lately": f"{_PENDING} UNION {_HAD_LATELY}",
}
# OFFSET 0 prevents the look-ups by id from becoming a join, which could read the whole table.
_QUERY = """
    WITH RECURSIVE wanted AS (
        SELECT * FROM jsonb_to_recordset(%s::jsonb)
        AS given (place int, key text, after bigint, since bigint{device})
    ), {firsts},
    found AS (
        SELECT w.place, page.message_id, page.had, page.had_xmin,
               row_number() OVER (PARTITION BY w.place ORDER BY page.message_id{w_device}) AS number
               {w_device}
        FROM wanted w CROSS JOIN LATERAL ({source}) page
    )
    SELECT f.place, m.id, m.op, m.body, m.is_json, f.had, f.had_xmin, m.exclude{f_device}
    FROM found f CROSS JOIN LATERAL (
        SELECT id, op, body, is_json, exclude FROM offline_message
        WHERE id = f.message_id OFFSET 0
    ) m
    WHERE f.number <= {size}
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, pg_current_snapshot()::text{no_device}
    ORDER BY 1, 2{by_device}
"""
_OF_KEYS = {"of_device": "", "by_device": "", "by_device_lately": ""}
# A row without a device is for all devices, unless the clients that give no name are a device of
# the key.
_OF_DEVICES = {
    "of_device": """AND (p.device = w.device OR p.device = '' AND NOT EXISTS (
            SELECT 1 FROM offline_keydevice d WHERE d.key = w.key AND d.name = ''
        ))""",
    "by_device": "AND e.device = w.device",
    "by_device_lately": "AND device = w.device",
}


def pages_query(kind: PageKind, size: int, age: float, *, of_devices: bool = False) -> str:
    """Return the query that `Dialect.pages_query` describes, or `Dialect.device_pages_query`."""
    # The server's time, because the clocks of several processes may differ.
    now = "statement_timestamp()"
    source = _SOURCES[kind].format(
        now=now,
        then=f"{now} - interval '{age:f} seconds'",
        no_age="CAST(NULL AS double precision)",
        no_xmin="CAST(NULL AS bigint)",
        size=int(size),
        lately=LATELY_MAX,
        **(_OF_DEVICES if of_devices else _OF_KEYS),
    )
    return _QUERY.format(
        firsts=FIRSTS,
        source=source,
        size=int(size),
        device=", device text" if of_devices else "",
        w_device=", w.device" if of_devices else "",
        f_device=", f.device" if of_devices else "",
        no_device=", NULL" if of_devices else "",
        by_device=", 9" if of_devices else "",
    )
