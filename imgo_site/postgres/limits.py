"""Limits of the time that a process waits for one statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections

from imgo_site.conf import conf
from imgo_site.postgres.connection import Connection

LIMIT = "STATEMENT_LIMIT"  # of the settings of a database: seconds
IDLE_MAX = 8  # seconds that a transaction may wait for its process


def limit_statements() -> None:
    """Let each statement of this process take `DATABASE_TIMEOUT` seconds.

    Servers call it when they start. Commands such as `migrate` have no limit.
    """
    for alias in {DEFAULT_DB_ALIAS, conf.REPLICA_DATABASE or DEFAULT_DB_ALIAS}:
        connections.settings[alias][LIMIT] = conf.DATABASE_TIMEOUT


def limit_thread(extra: float) -> None:
    """Let the statements of this thread take `extra` seconds more than others of its process.

    It has no effect in a process without a limit, and none on a connection that is open.
    """
    parameters: dict[str, Any] = connection.settings_dict
    if LIMIT in parameters:
        connection.settings_dict = {**parameters, LIMIT: conf.DATABASE_TIMEOUT + extra}


@contextmanager
def limited(extra: float = 0.0) -> Iterator[None]:
    """Let each statement inside take `DATABASE_TIMEOUT` and `extra` seconds, and no more.

    It has no effect in a process without a limit.
    """
    connection.ensure_connection()
    raw = connection.connection
    if isinstance(raw, Connection) and raw.limit is not None:
        with raw.limited(conf.DATABASE_TIMEOUT + extra):
            yield
    else:
        yield


def limit_idle() -> None:
    """Let Postgres end the present transaction if this process hangs in it for `IDLE_MAX` seconds.

    A process that was stopped or cut off would otherwise keep its locks until it goes on.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_MAX}s'")
