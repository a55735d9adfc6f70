"""How long a process waits for one statement."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections

from imgo_site.conf import conf

LIMIT = "STATEMENT_LIMIT"  # of the settings of a database: seconds


def limit_statements(extra: float = 0.0) -> None:
    """Let each statement of this process take `DATABASE_TIMEOUT` seconds, and `extra` ones.

    Servers call it when they start. Commands such as `migrate` have no limit.
    """
    connections.settings[DEFAULT_DB_ALIAS][LIMIT] = conf.DATABASE_TIMEOUT + extra


def limit_thread(extra: float) -> None:
    """Let the statements of this thread take `extra` seconds more than others of its process.

    It has no effect in a process without a limit, and none on a connection that is open.
    """
    known: dict[str, Any] = connection.settings_dict
    if LIMIT in known:
        connection.settings_dict = {**known, LIMIT: conf.DATABASE_TIMEOUT + extra}
