"""SQL dialects of the databases. `dialect()` selects one."""

from django.db import connection

from offline.sql.base import CHUNK, Dialect, PageKind, chunks
from offline.sql.postgres import PostgresDialect
from offline.sql.sqlite import SqliteDialect

__all__ = ["CHUNK", "Dialect", "PageKind", "chunks", "dialect"]

_DIALECTS: dict[str, Dialect] = {"postgresql": PostgresDialect(), "sqlite": SqliteDialect()}


def dialect() -> Dialect:
    """Return the dialect of the calling thread's database connection."""
    return _DIALECTS[connection.vendor]
