"""Django's database wrapper for Postgres, with our pool and connections."""

from typing import Any, ClassVar

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import IsolationLevel

from imgo_site.postgres.connection import Connection, check
from imgo_site.postgres.pool import Pool


class DatabaseWrapper(base.DatabaseWrapper):
    """One thread's access to the database."""

    _connection_pools: ClassVar[dict[str, Any]] = {}

    @property
    def statement_limit(self) -> float | None:
        """Seconds that each statement may take; None: no limit. See `limit_statements`."""
        limit: float | None = self.settings_dict.get("STATEMENT_LIMIT")
        return limit

    @property
    def pool(self) -> Any:
        """This process's pool; None for a thread with a connection of its own."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        if self.alias not in self._connection_pools:
            pool = Pool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                connection_class=Connection,
                open=False,
                configure=self._configure_connection,  # type: ignore[attr-defined]  # no stub
                check=check,
                **(options if isinstance(options, dict) else {}),
            )
            # Of two threads that come here at once, the first one's pool is used.
            self._connection_pools.setdefault(self.alias, pool)
        return self._connection_pools[self.alias]

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection with this thread's limit."""
        if self.pool is not None or "isolation_level" in self.settings_dict["OPTIONS"]:
            connection = super().get_new_connection(conn_params)
        else:
            self.isolation_level = IsolationLevel.READ_COMMITTED
            connection = Connection.connect(**conn_params)
        if isinstance(connection, Connection):
            connection.limit = self.statement_limit
        return connection
