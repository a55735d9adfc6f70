"""Django's SQLite backend, with transactions that may write from their beginning.

Django 5.1 has the option `transaction_mode` instead. By default, SQLite lets a transaction read,
and refuses its first write if another connection writes at that moment: "database is locked". The
relay is another connection. `BEGIN IMMEDIATE` waits for the other one, up to the option `timeout`.
"""

from __future__ import annotations

from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Connection whose transactions begin with `BEGIN IMMEDIATE`."""

    def _start_transaction_under_autocommit(self) -> None:
        self.cursor().execute("BEGIN IMMEDIATE")
