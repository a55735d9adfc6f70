"""Pages of a key's messages on SQLite, which has no LATERAL and holds one server's messages."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from offline.sql.base import PageKind

_ROWS: Mapping[str, str] = {
    "pending": """
        SELECT w.place{w_device}, p.message_id, NULL AS had
        FROM wanted w JOIN offline_pending p ON p.key = w.key {of_device}
        WHERE p.message_id > w.after AND p.message_id > w.since AND p.expires_at > {now}""",
    "long pending": """
        SELECT w.place{w_device}, p.message_id, NULL AS had
        FROM wanted w JOIN offline_pending p ON p.key = w.key {of_device}
        JOIN offline_message m ON m.id = p.message_id
        WHERE p.message_id > w.after AND p.expires_at > {now} AND m.created_at < {then}
              AND NOT EXISTS (SELECT 1 FROM offline_outbox o
                              WHERE o.message_id = p.message_id AND o.parked_at IS NULL)""",
    "had": """
        SELECT w.place{w_device}, e.message_id, NULL AS had
        FROM wanted w JOIN offline_event e ON e.key = w.key {by_device}
        JOIN offline_message m ON m.id = e.message_id
        WHERE e.message_id > w.after AND e.message_id > w.since AND m.expires_at > {now}
              AND e.kind IN ('received', 'acknowledged')""",
    "had lately": """
        SELECT w.place{w_device}, e.message_id, (julianday({now}) - julianday(e.at)) * 86400 AS had
        FROM wanted w JOIN offline_event e ON e.key = w.key {by_device}
        JOIN offline_message m ON m.id = e.message_id
        WHERE e.message_id > w.after AND m.expires_at > {now} AND e.at > {then}
              AND e.kind IN ('received', 'acknowledged')""",
}
_SOURCES: Mapping[PageKind, str] = {
    "pending": _ROWS["pending"],
    "long pending": _ROWS["long pending"],
    "history": f"{_ROWS['pending']} UNION {_ROWS['had']}",
    "lately": f"{_ROWS['pending']} UNION {_ROWS['had lately']}",
}
_QUERY = """
    WITH wanted (place, key, after, since{device}) AS (
        SELECT json_extract(value, '$.place'), json_extract(value, '$.key'),
               json_extract(value, '$.after'), json_extract(value, '$.since'){json_device}
        FROM json_each(%s)
    ),
    found AS ({source}),
    ranked AS (
        SELECT place, message_id, had,
               row_number() OVER (PARTITION BY place ORDER BY message_id{device}) AS number{device}
        FROM found
    )
    SELECT r.place, m.id, m.op, m.body, m.is_json, r.had, NULL, m.exclude{r_device}
    FROM ranked r JOIN offline_message m ON m.id = r.message_id
    WHERE r.number <= {size} ORDER BY r.place, m.id{r_device}
"""
# A row without a device is for all devices, unless the clients that give no name are a device of
# the key.
_OF_DEVICE = """AND (p.device = w.device OR p.device = '' AND NOT EXISTS (
            SELECT 1 FROM offline_keydevice d WHERE d.key = w.key AND d.name = ''))"""


def pages_query(kind: PageKind, size: int, age: float, *, of_devices: bool = False) -> str:
    """Return the query that `Dialect.pages_query` describes, or `Dialect.device_pages_query`."""
    moment = timezone.now()
    then = moment - timedelta(seconds=age)
    source = _SOURCES[kind].format(
        now=time_literal(moment),
        then=time_literal(then),
        w_device=", w.device" if of_devices else "",
        of_device=_OF_DEVICE if of_devices else "",
        by_device="AND e.device = w.device" if of_devices else "",
    )
    return _QUERY.format(
        source=source,
        size=int(size),
        device=", device" if of_devices else "",
        json_device=", json_extract(value, '$.device')" if of_devices else "",
        r_device=", r.device" if of_devices else "",
    )


def time_literal(time: datetime) -> str:
    """Return SQL for a time as Django stores it."""
    return f"'{connection.ops.adapt_datetimefield_value(time)}'"
