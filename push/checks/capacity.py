"""Checks of capacity: limits of the machine, Postgres and Redis against the needs of processes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis
from django.core import checks
from django.core.checks import CheckMessage, Info, Tags, register
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models.functions import Now

from imgo_site import open_files
from imgo_site.conf import conf
from imgo_site.deployment import redis_url
from offline.partitions import current, queues_needed
from push.bus.redis_clients import reader_client
from push.checks.reading import with_settings
from push.models import Node

FILES_MIN = 10_000  # sessions that a node should be able to hold
API_PROCESSES = 2  # of gunicorn, as in docs/deploying.md; WEB_CONCURRENCY overrides it
REDIS_CONNECTIONS = 15  # of one process; measured: 11 of a worker, 8 of a node, 3 of the API
THREAD_GROUPS = 3  # of a node: see imgo_site/database_threads.py
MEMORY_USED_MAX = 0.8  # of Redis's maxmemory


@register(deploy=True)
@with_settings
def check_files() -> Iterator[CheckMessage]:
    """W014: a limit of open files that lets a node hold only few sessions."""
    _, most = open_files.limits()  # a node raises its soft limit to the hard one
    sessions = most - open_files.RESERVED
    needed = max(FILES_MIN, conf.LISTEN_BACKLOG, conf.MAX_SESSIONS_PER_KEY)
    if sessions < needed:
        yield checks.Warning(
            f"A process here may open {most} files, so a node holds about {max(0, sessions)} "
            f"sessions; it should be able to hold {needed}.",
            hint="Raise the hard limit: LimitNOFILE= in systemd, --ulimit nofile= in Docker, "
            "ulimit -Hn in a shell.",
            id="imgo.W014",
        )


@dataclass(frozen=True)
class Processes:
    """Numbers of processes, as far as this process can know them."""

    nodes: int
    workers: int
    api: int

    @property
    def total(self) -> int:
        """Return the number of all processes."""
        return self.nodes + self.workers + self.api

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.workers} workers and {self.api} API processes"


def count_processes() -> Processes:
    """Return the numbers of recently live nodes, workers (one a partition) and gunicorn processes.

    It queries the database.
    """
    recently = Now() - timedelta(seconds=2 * conf.NODE_LEASE)
    nodes = Node.objects.filter(last_seen__gt=recently).count()
    concurrency = os.environ.get("WEB_CONCURRENCY", "")
    api = int(concurrency) if concurrency.isdecimal() else API_PROCESSES
    return Processes(max(1, nodes), queues_needed(), api)


@register(Tags.database, deploy=True)
def check_connections(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W015: processes that may open more connections than Postgres accepts.

    W016: processes that may open more connections than Redis accepts; W035: a Redis that drops
    keys when it is full; W036: a Redis that is nearly full; I001: Postgres or Redis cannot be
    reached, so its limits were not checked.
    """
    if "default" not in (databases or ()):
        return []
    try:
        processes = count_processes()
        messages = list(_check_postgres(processes))
    except DatabaseError as error:
        return [_not_checked("The database", error)]
    return messages + list(_check_redis(processes))


@register(Tags.database)
def check_partitions(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """W050: a number of partitions in the database that is not that of the settings."""
    if "default" not in (databases or ()):
        return []
    try:
        now = current()
    except DatabaseError:
        return []  # its tables are missing, or `check_connections` tells that it is away
    if now.partitions == conf.PARTITIONS:
        return []
    return [
        checks.Warning(
            f"There are {now.partitions} partitions since 'manage.py partitions' changed their "
            f"number; PARTITIONS is {conf.PARTITIONS}. A plain 'celery worker' starts with "
            "PARTITIONS.",
            hint=f"Set IMGO_PARTITIONS={now.partitions} in the environment of all processes, or "
            f"PARTITIONS in settings of your own.",
            id="imgo.W050",
        )
    ]


def _check_postgres(processes: Processes) -> Iterator[CheckMessage]:
    pool = connection.settings_dict.get("OPTIONS", {}).get("pool")
    if connection.vendor != "postgresql" or not isinstance(pool, dict):
        return
    size = int(pool.get("max_size") or pool.get("min_size") or 4)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int,"
            " current_setting('superuser_reserved_connections')::int"
        )
        most, reserved = cursor.fetchone()
    own = THREAD_GROUPS * conf.DATABASE_THREADS + bool(conf.WEBHOOKS)
    own += bool(conf.EVENT_KEYS or conf.EVENT_ROOMS)
    needed = processes.total * size + processes.nodes * own
    if needed > most - reserved:
        yield checks.Warning(
            f"{processes}, each with a pool of {size}, and {own} more connections of each node, "
            f"may open {needed} connections; Postgres accepts {most - reserved}.",
            hint="Raise max_connections of Postgres, lower DATABASE_POOL_SIZE or DATABASE_THREADS, "
            "or put a pooler in between.",
            id="imgo.W015",
        )


def _check_redis(processes: Processes) -> Iterator[CheckMessage]:
    if not redis_url():
        return
    try:
        with reader_client(redis_url(), "imgo-checks") as client:
            most = client.info("clients").get("maxclients")
            memory = client.info("memory")
    except redis.RedisError as error:
        yield _not_checked("Redis", error)
        return
    needed = processes.total * REDIS_CONNECTIONS
    if most is not None and needed > int(most):
        yield checks.Warning(
            f"{processes} may open {needed} connections; Redis accepts {most}.",
            hint="Raise maxclients of Redis.",
            id="imgo.W016",
        )
    yield from _check_memory(memory)


def _check_memory(memory: dict[str, Any]) -> Iterator[CheckMessage]:
    """W035: a Redis that drops keys when it is full; W036: a Redis that is nearly full."""
    limit, policy = int(memory.get("maxmemory") or 0), memory.get("maxmemory_policy")
    if limit and policy != "noeviction":
        yield checks.Warning(
            f"Redis drops keys when it is full (maxmemory-policy {policy}). imgo would lose task "
            "queues and the list of connected sessions.",
            hint="Set maxmemory-policy to noeviction, and give Redis enough memory. imgo's part "
            "grows with the sessions, not with the messages.",
            id="imgo.W035",
        )
    used = int(memory.get("used_memory") or 0)
    if limit and used > limit * MEMORY_USED_MAX:
        yield checks.Warning(
            f"Redis uses {used / limit:.0%} of its maxmemory ({limit} bytes). When it is full, new "
            "sessions are refused and /readyz is 503.",
            hint="Raise maxmemory of Redis, or give imgo a Redis of its own.",
            id="imgo.W036",
        )


def _not_checked(service: str, error: Exception) -> CheckMessage:
    return Info(
        f"{service} cannot be reached, so its limits were not checked: {error}".strip(),
        hint="Run the check again when it can be reached.",
        id="imgo.I001",
    )
