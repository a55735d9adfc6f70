"""`manage.py workers`: one Celery worker for each partition, kept running."""

import re
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError
from django.db import Error as DatabaseError

from imgo_site.conf import conf
from imgo_site.deployment import has_workers
from offline.partitions import queues_needed
from push.management.console import ImgoCommand
from push.metrics.worker_endpoint import taken
from push.server.worker_processes import Supervisor


class Command(ImgoCommand):
    """Command that runs the workers."""

    help = (
        "Run one Celery worker for each partition, and restart workers that exit or hang. SIGTERM "
        "stops them; each finishes its task. To use several machines, give each a share of the "
        "partitions."
    )

    requires_system_checks = "__all__"
    examples: ClassVar = ("", "--partitions 0-1", "--partitions 2,3 --log-level WARNING")

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the partitions to work on, and the level of the workers' logs."""
        parser.add_argument(
            "--partitions",
            default="",
            help="partitions to run workers for, such as 0-3 or 0,2 (default: all, also after "
            "'manage.py partitions' has changed their number)",
        )
        parser.add_argument(
            "--log-level",
            default="INFO",
            type=str.upper,
            choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
            metavar="LEVEL",
            help="log level of the workers: DEBUG, INFO (default), WARNING, ERROR or CRITICAL",
        )

    def run(self, **options: Any) -> None:
        """Run the workers until stopped."""
        if not has_workers():
            raise CommandError(
                "There is nothing to do: without a broker the server itself does what workers do. "
                "Set REDIS_URL or CELERY_BROKER_URL in the environment, or IMGO_BROKER_URL in "
                "settings of your own."
            )
        count = _count()
        partitions = _partitions(options["partitions"], count)
        follows = not options["partitions"]
        try:
            supervisor = Supervisor(partitions, options["log_level"], follows=follows)
        except OSError as error:
            raise CommandError(taken(error)) from None
        names = ", ".join(map(str, partitions))
        self.stdout.write(f"Workers for partitions {names} of {count}. Ctrl-C stops.")
        self.stdout.flush()
        supervisor.run()
        self.stdout.write("The workers have stopped.")


def _count() -> int:
    """Return the number of partitions; that of the settings while the database is away.

    The supervisor follows it when the database is back.
    """
    try:
        return queues_needed()
    except DatabaseError:
        return conf.PARTITIONS


def _partitions(text: str, count: int) -> list[int]:
    """Return the partitions that a text such as `0-3,5` names, in order; all for "".

    `count`: number of partitions. Raises `CommandError` if the text is not valid.
    """
    if not text:
        return list(range(count))
    partitions: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if match is None:
            raise CommandError(f"--partitions {text!r}: use a form such as 0-3 or 0,2.")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise CommandError(f"--partitions {text!r}: {first} is more than {last}.")
        partitions.update(range(first, last + 1))
    if wrong := [n for n in partitions if n >= count]:
        raise CommandError(f"There is no partition {wrong[0]}: there are {count}, counted from 0.")
    return sorted(partitions)
