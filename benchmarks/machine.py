"""What a run was measured on: machine, versions, date."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.servers import Stack

PACKAGES = (
    *("django", "channels", "channels-redis", "daphne", "twisted", "celery", "redis"),
    *("hiredis", "psycopg", "djangorestframework", "msgspec", "gunicorn", "websockets"),
)


def facts(stack: Stack) -> dict[str, Any]:
    """For the JSON file."""
    with stack.database() as database:
        postgres = database.execute("show server_version").fetchone()
    server: Any = stack.redis.info("server")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _field("/proc/cpuinfo", "model name"),
            "memory": _field("/proc/meminfo", "MemTotal"),
            "kernel": platform.release(),
            "load_average_before": os.getloadavg(),
        },
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))}
        | {"postgres": postgres[0] if postgres else "", "redis-server": server["redis_version"]},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""
