"""What a push adds to a request: `python -m benchmarks.shop.cost REQUESTS` prints it as JSON.

Requests with and without a push take turns in one process, so that both see the same machine.
"""

import io
import json
import statistics
import sys
import time
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler

from benchmarks import proc

ROUNDS = 20
WARM = 50  # requests of each kind before


class Requests:
    """Makes requests to the project, in this process."""

    def __init__(self) -> None:
        from django.db import connection

        self._handler = WSGIHandler()
        self._connection = connection
        connection.ensure_connection()
        info = getattr(connection.connection, "info", None)
        self._backend = info.backend_pid if info is not None else None  # of Postgres

    def make(self, path: str, count: int) -> tuple[float, float]:
        """CPU seconds of this process, and of Postgres's, for so many requests."""
        own, other = time.process_time(), self._database_cpu()
        for _ in range(count):
            response = self._handler(_environ(path), _started)
            assert response.status_code == 200, path
            response.close()
        return time.process_time() - own, self._database_cpu() - other

    def _database_cpu(self) -> float:
        return proc.cpu(self._backend) if self._backend else 0.0

    def queries(self, path: str) -> int:
        """How many queries a request makes."""
        count = 0

        def note(execute: Any, *rest: Any) -> Any:
            nonlocal count
            count += 1
            return execute(*rest)

        with self._connection.execute_wrapper(note):
            self.make(path, 1)
        return count


def _environ(path: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/{path}",
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }


def _started(*_: object) -> None:
    pass


def main(count: int) -> dict[str, float]:
    """Medians of the rounds, in microseconds a request."""
    requests = Requests()
    for path in ("plain", "pushing"):
        requests.make(path, WARM)
    each = count // ROUNDS
    plain, pushing = [], []
    for _ in range(ROUNDS):
        plain.append(requests.make("plain", each))
        pushing.append(requests.make("pushing", each))
    pairs = list(zip(plain, pushing, strict=True))
    return {
        "plain_us": statistics.median(own for own, _ in plain) / each * 1e6,
        "added_us": statistics.median(b[0] - a[0] for a, b in pairs) / each * 1e6,
        "added_database_us": statistics.median(b[1] - a[1] for a, b in pairs) / each * 1e6,
        "added_queries": requests.queries("pushing") - requests.queries("plain"),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(int(sys.argv[1]))))
