"""A Postgres server of a test's own, with streaming standbys."""

from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from tests.services import Postgres, ServiceError, postgres_programs, start_first

COPY_TIMEOUT = 60.0  # seconds for a copy of the primary


class Primary(Postgres):
    """A server with standbys, which are there as long as it."""

    def __init__(self, base: Path, programs: Path) -> None:
        super().__init__(base, programs)
        self.standbys: list[Standby] = []

    def add_standby(self, base: Path) -> "Standby":
        """Start a standby with all that the server has now."""
        self.standbys.append(start_first(partial(Standby, self), base, postgres_programs()))
        return self.standbys[-1]

    def lsn(self) -> str:
        """The place in its log."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
        assert row is not None
        return str(row[0])


class Standby(Postgres):
    """A streaming, asynchronous standby of another server."""

    def __init__(self, primary: Primary, base: Path, programs: Path) -> None:
        self._primary = primary
        super().__init__(base, programs)

    def _make_database(self) -> None:
        self._process = self._launch(
            *(self._programs / "pg_basebackup", "-h", "127.0.0.1", "-p", str(self._primary.port)),
            *("-U", "postgres", "-D", self._data, "-R", "-c", "fast", "-X", "stream", "--no-sync"),
        )
        if self._process.wait(COPY_TIMEOUT) != 0:
            raise ServiceError(f"The primary could not be copied.\n{self._tail()}")

    def execute(self, statement: str) -> Any:
        """The first column of the first row."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            row = connection.execute(statement).fetchone()
            return None if row is None else row[0]

    def has(self, lsn: str) -> bool:
        """Whether it has all up to this place in the primary's log."""
        return bool(self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"))

    def disconnect(self) -> None:
        """Get nothing more from the primary."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=10) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")

    def take_over(self) -> None:
        """Be the primary, at its address."""
        self.execute("SELECT pg_promote()")
        self.stop()
        self.port = self._primary.port
        self.start()
