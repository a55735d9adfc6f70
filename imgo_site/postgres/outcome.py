"""What became of a transaction whose COMMIT was sent and whose answer was lost."""

import time
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from django.db import connection

from imgo_site.postgres.connection import Connection

FIND_TIMEOUT = 2.0  # seconds; a transaction that is still in progress then stays unknown
CONNECT_TIMEOUT = 2  # seconds for each host, the least that libpq takes
PAUSE = 0.05  # seconds between two questions

# Which server this is: the system and the timeline of a `Trace`. A standby raises an error.
SERVER = """
    SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8)
    FROM pg_control_system()
"""


class Outcome(Enum):
    """What became of a transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trace:
    """A transaction's id, and the server that gave it.

    Another server, or this one after it was restored, gives the same ids to other transactions:
    `system` tells servers apart, `timeline` changes with each promotion and restore.
    """

    xid: str
    system: int
    timeline: str


def find_out(trace: Trace, proof: str, parameters: list[Any]) -> Outcome:
    """Ask a new connection what became of a transaction; takes a few seconds at most.

    `proof`: a query that returns a row if the transaction's rows are there. It is decisive where
    the id is not: after a crash, an id whose transaction left nothing on the disk is given again.
    """
    deadline = time.monotonic() + FIND_TIMEOUT
    while True:
        try:
            found = _ask(trace, proof, parameters, deadline)
        except psycopg.Error:
            found = Outcome.UNKNOWN
        if found is not Outcome.UNKNOWN or time.monotonic() + PAUSE >= deadline:
            return found
        time.sleep(PAUSE)


def _ask(trace: Trace, proof: str, parameters: list[Any], deadline: float) -> Outcome:
    """Ask until the transaction is over or time is."""
    # Not one of the pool's: all of them may be waiting like the one that was lost.
    known = {**connection.get_connection_params(), "connect_timeout": CONNECT_TIMEOUT}
    with Connection.connect(**known, autocommit=True) as own:
        while True:
            own.limit = max(PAUSE, deadline - time.monotonic())
            found = _read(own, trace, proof, parameters)
            if found is not None or time.monotonic() + PAUSE >= deadline:
                return found or Outcome.UNKNOWN
            time.sleep(PAUSE)


def _read(own: Connection, trace: Trace, proof: str, parameters: list[Any]) -> Outcome | None:
    """Return what is known; None while the transaction is in progress."""
    if own.execute(proof, parameters).fetchone():
        return Outcome.COMMITTED
    if own.execute(SERVER).fetchone() != (trace.system, trace.timeline):
        return Outcome.UNKNOWN
    row = own.execute("SELECT pg_xact_status(%s::xid8)", [trace.xid]).fetchone()
    status = row[0] if row else None
    if status == "in progress":
        return None
    # Committed, and its rows are not there: they were forgotten meanwhile, or it was another one.
    return Outcome.ABORTED if status == "aborted" else Outcome.UNKNOWN
