"""Statements of online events, for Postgres and SQLite.

Rows are one JSON parameter: quoting each value takes Django longer than all the rest.
"""

from dataclasses import dataclass

# Added to a number under another database than the last event's. After the failover to a standby
# that lacks the latest events, numbers go on above those that were lost.
NUMBERS_LOST_MAX = 1_000_000

_NEXT = f"old.number + CASE WHEN old.cluster = {{}} THEN 1 ELSE {NUMBERS_LOST_MAX} END"
_ACQUIRE = """
    INSERT INTO push_onlinenode (id, name, beat, cluster, is_stopped, is_ended)
    VALUES (%s, %s, 0, {cluster}, false, false)
"""
_BEAT = """
    UPDATE push_onlinenode SET beat = beat + 1
    WHERE id = %s AND NOT is_ended AND cluster = {cluster}
    RETURNING id
"""
_LEASE = """
    SELECT 1 FROM push_onlinenode WHERE id = %s AND NOT is_ended AND cluster = {cluster} {lock}
"""
_GO_ONLINE = """
    INSERT INTO push_onlinestate AS old (key, number, is_online, at, cluster, is_unreported)
    SELECT given.name, {now}, true, {moment}, {cluster}, false FROM {source} WHERE true
    ON CONFLICT (key) DO UPDATE SET
        number = {number}, is_online = true, at = {later}(old.at, EXCLUDED.at),
        cluster = EXCLUDED.cluster, is_unreported = false
    WHERE NOT old.is_online
    RETURNING key, number, {at}
"""
_GO_OFFLINE = """
    UPDATE push_onlinestate AS old SET
        number = {number}, is_online = false, at = {later}(old.at, {moment}),
        cluster = {cluster}, is_unreported = false
    FROM {source}
    WHERE old.key = given.name AND old.is_online
        AND NOT EXISTS (SELECT 1 FROM push_onlinekey AS held WHERE held.key = old.key)
    RETURNING key, number, {at}
"""


@dataclass(frozen=True, slots=True)
class Statements:
    """Statements of one kind of database.

    `acquire`, `beat`: insert and renew a lease; the second returns nothing if it was lost.
    `lease`: finds the lease of a node that may write, and keeps it from being removed.
    `reaped_lease`: locks the lease of a node whose keys are removed.
    `go_online`: makes keys online, and returns (key, number, Unix time) of those that were offline.
    `lock`: locks the states of keys; "" if the database has one writer at a time.
    `insert`, `delete`: insert and delete rows of `OnlineKey`.
    `go_offline`: makes those keys offline that no node has, and returns the same of them.
    """

    acquire: str
    beat: str
    lease: str
    reaped_lease: str
    go_online: str
    lock: str
    insert: str
    delete: str
    go_offline: str


def postgres(cluster: str) -> Statements:
    """Return the statements for Postgres. `cluster`: SQL for the identity of the database."""
    parts = {
        "cluster": cluster,
        "source": "jsonb_to_recordset(%s::jsonb) AS given (name text, moment float8)",
        "moment": "to_timestamp(given.moment)",
        "at": "extract(epoch FROM at)::float8",
        "later": "greatest",
    }
    now = "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    return Statements(
        acquire=_ACQUIRE.format(cluster=cluster),
        beat=_BEAT.format(cluster=cluster),
        # This lock conflicts with the next one, and not with the UPDATE of a beat.
        lease=_LEASE.format(cluster=cluster, lock="FOR KEY SHARE"),
        reaped_lease="""SELECT name, is_stopped FROM push_onlinenode
                        WHERE id = %s AND is_ended FOR UPDATE SKIP LOCKED""",
        go_online=_GO_ONLINE.format(now=now, number=_NEXT.format("EXCLUDED.cluster"), **parts),
        # All transactions lock keys in this order, which prevents deadlocks.
        lock="""SELECT key FROM push_onlinestate WHERE key = ANY(%s::text[])
                ORDER BY key COLLATE "C" FOR UPDATE""",
        insert="""INSERT INTO push_onlinekey (node, key) SELECT %s, unnest(%s::text[])
                  ON CONFLICT DO NOTHING""",
        delete="DELETE FROM push_onlinekey WHERE node = %s AND key = ANY(%s::text[])",
        go_offline=_GO_OFFLINE.format(number=_NEXT.format(cluster), **parts),
    )


def sqlite(cluster: str) -> Statements:
    """Return the statements for SQLite. `cluster`: as for Postgres."""
    parts = {
        "cluster": cluster,
        "source": """(SELECT json_extract(value, '$.name') AS name,
                      json_extract(value, '$.moment') AS moment FROM json_each(%s)) AS given""",
        # The form in which Django stores times.
        "moment": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', given.moment, 'unixepoch')",
        "at": "round((julianday(at) - 2440587.5) * 86400, 3)",
        "later": "max",
    }
    now = "CAST((julianday('now') - 2440587.5) * 86400000 AS integer)"  # days from the epoch
    return Statements(
        acquire=_ACQUIRE.format(cluster=cluster),
        beat=_BEAT.format(cluster=cluster),
        lease=_LEASE.format(cluster=cluster, lock=""),
        reaped_lease="SELECT name, is_stopped FROM push_onlinenode WHERE id = %s AND is_ended",
        go_online=_GO_ONLINE.format(now=now, number=_NEXT.format("EXCLUDED.cluster"), **parts),
        lock="",
        insert="""INSERT INTO push_onlinekey (node, key) SELECT %s, value FROM json_each(%s)
                  WHERE true ON CONFLICT DO NOTHING""",
        delete="""DELETE FROM push_onlinekey
                  WHERE node = %s AND key IN (SELECT value FROM json_each(%s))""",
        go_offline=_GO_OFFLINE.format(number=_NEXT.format(cluster), **parts),
    )
