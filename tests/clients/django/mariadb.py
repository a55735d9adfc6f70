"""A private MariaDB server for the tests: a child process that ends with them.

The programs are the machine's. Without them the tests that need them fail, and say what to install;
`make test` leaves them out then, and says so.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pymysql
import pytest

from tests.services import LOG_TAIL, UP_TIMEOUT, Server, ServiceError, unprivileged_user

SBIN = "/usr/sbin:/usr/local/sbin"  # where Debian has it, which is not on every user's PATH
MISSING = (
    "There is no {}. Debian's: apt-get install mariadb-server-core mariadb-client-core. "
    "Without these tests: TESTS_WITHOUT_MARIADB=1"
)


def program(name: str) -> str:
    """Return the path of one of MariaDB's programs; end the test without it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if found is None:
        pytest.fail(MISSING.format(name), pytrace=False)
    return found


class MariaDb(Server):
    """MariaDB server whose only user is root, without a password, on 127.0.0.1."""

    title = "MariaDB"

    def __init__(self) -> None:
        self._programs = {
            name: program(name) for name in ("mariadbd", "mariadb-install-db", "my_print_defaults")
        }
        user = unprivileged_user() if os.geteuid() == 0 else None
        super().__init__(Path(tempfile.mkdtemp(prefix="imgo-mariadb-", dir="/tmp")), user)
        if user is not None:
            os.chown(self.home, user.pw_uid, user.pw_gid)
        self._make_data()

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}"

    def _make_data(self) -> None:
        words = [self._programs["mariadb-install-db"], "--no-defaults", "--skip-test-db"]
        words += ["--auth-root-authentication-method=normal", f"--datadir={self.home / 'data'}"]
        self._process = self._launch(*words)
        try:
            self._process.wait(UP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.returncode != 0:
            tail = self.log.read_bytes()[-LOG_TAIL:].decode(errors="replace")
            raise ServiceError(f"mariadb-install-db made no database.\n{tail}")

    def _command(self) -> Sequence[str | Path]:
        options = {
            "datadir": self.home / "data",
            "port": self.port,
            "bind-address": "127.0.0.1",
            "socket": self.home / "socket",
            "pid-file": self.home / "pid",
            # A zone whose clock is set back once a year: leases must not depend on it.
            "default-time-zone": "-05:00",
            "innodb-flush-log-at-trx-commit": 0,
            "innodb-buffer-pool-size": "32M",
            "performance-schema": "OFF",
        }
        words = (f"--{name}={value}" for name, value in options.items())
        return [self._programs["mariadbd"], "--no-defaults", *words]

    def _answers(self) -> bool:
        try:
            with self.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT @@datadir")
                return Path(cursor.fetchone()[0]) == self.home / "data"
        except pymysql.OperationalError:
            return False

    def connect(self) -> pymysql.Connection:
        """Return a connection of root."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", connect_timeout=2, autocommit=True
        )

    def make_database(self) -> dict[str, object]:
        """Create a database; return it as Django's settings have it."""
        name = f"shop_{secrets.token_hex(4)}"
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "USER": "root",
            "OPTIONS": {"charset": "utf8mb4"},
            "TEST": {"NAME": f"test_{name}", "CHARSET": "utf8mb4"},
        }
