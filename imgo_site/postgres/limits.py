"""How long a thread waits for one statement."""

from django.db import connection

from imgo_site.conf import conf


def limit_statements(extra: float = 0.0) -> None:
    """Let each statement of this thread take `DATABASE_TIMEOUT` seconds, and `extra` ones.

    For threads of servers. It holds until the thread ends.
    """
    seconds = conf.DATABASE_TIMEOUT + extra
    connection.statement_limit = seconds  # type: ignore[attr-defined]  # imgo_site.postgres has it
    if connection.connection is not None and hasattr(connection.connection, "limit"):
        connection.connection.limit = seconds
