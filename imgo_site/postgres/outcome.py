"""Query of a transaction's outcome, after the answer to its COMMIT was lost."""

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
    """Query the outcome of a transaction on a new connection. Takes a few seconds at most.

    `proof`: a query that returns a row if the transaction's rows exist. The id of the transaction
    alone does not decide: after a crash, Postgres may use the id of a transaction that left nothing
    on the disk again.
    """
    deadline = time.monotonic() + FIND_TIMEOUT
    while True:
        try:
            outcome = _ask(trace, proof, parameters, deadline)
        except psycopg.Error:
            outcome = Outcome.UNKNOWN
        if outcome is not Outcome.UNKNOWN or time.monotonic() + PAUSE >= deadline:
            return outcome
        time.sleep(PAUSE)


def _ask(trace: Trace, proof: str, parameters: list[Any], deadline: float) -> Outcome:
    """Query until the transaction has ended, or until the deadline."""
    # Not one of the pool's: all of them may be waiting like the one that was lost.
    options = {**connection.get_connection_params(), "connect_timeout": CONNECT_TIMEOUT}
    with Connection.connect(**options, autocommit=True) as own:
        while True:
            own.limit = max(PAUSE, deadline - time.monotonic())
            outcome = _read(own, trace, proof, parameters)
            if outcome is not None or time.monotonic() + PAUSE >= deadline:
                return outcome or Outcome.UNKNOWN
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
