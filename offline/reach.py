"""Reach: number of sessions that a push to a room or to everyone was written to, from the nodes."""

from collections.abc import Sequence

from django.db import connection

from offline.sql import chunks


def add_counts(counts: Sequence[tuple[int, int]]) -> None:
    """Add one node's (message id, sessions) to the totals; skip messages without a record.

    The rows are written in order of id, so that two nodes with the same messages cannot deadlock.
    """
    for chunk in chunks(sorted(counts)):
        marks = ", ".join(["(CAST(%s AS bigint), CAST(%s AS integer))"] * len(chunk))
        with connection.cursor() as cursor:
            cursor.execute(_ADD.format(marks=marks), [value for pair in chunk for value in pair])


_ADD = """
    WITH given (message_id, sessions) AS (VALUES {marks})
    INSERT INTO offline_reach AS known (message_id, sessions, nodes)
    SELECT given.message_id, given.sessions, 1
    FROM given JOIN offline_message m ON m.id = given.message_id
    WHERE true
    ORDER BY given.message_id
    ON CONFLICT (message_id) DO UPDATE SET
        sessions = known.sessions + EXCLUDED.sessions, nodes = known.nodes + 1
"""
