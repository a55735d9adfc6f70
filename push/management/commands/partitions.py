"""`manage.py partitions [NUMBER]`: show or change the number of partitions, without a stop."""

import time
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.celery import app
from imgo_site.deployment import has_workers
from imgo_site.errors import Unavailable
from offline import partitions, repartitioning
from offline.repartitioning import Progress
from push.accept.worker_wakeups import wake
from push.checks.limits import PARTITIONS_MAX
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.registry.select import get_registry
from push.tasks import queue_of

POLL_INTERVAL = 0.02  # seconds
REPORT_EVERY = 2.0  # seconds


class Command(ImgoCommand):
    """Command that shows or changes the number of partitions."""

    help = (
        "Show the number of partitions, or change it while pushes arrive. Messages that were "
        "accepted before are fanned out first; later ones wait for them, and for transactions that "
        "have pushed and are still open. Interrupted, the nodes complete the change. Workers of "
        "'manage.py workers' follow by themselves."
    )
    examples: ClassVar = ("", "8")
    data: ClassVar = ('{"partitions": 8, "generation": 1, "open": true}',)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the new number."""
        parser.add_argument("number", nargs="?", type=int, help="the new number of partitions")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print the number, or change it and wait until messages are fanned out by it."""
        if options["number"] is not None:
            self._change(options["number"])
        now = partitions.current()
        if options["json"]:
            self.print_json(
                {"partitions": now.partitions, "generation": now.generation, "open": now.is_open}
            )
        else:
            text = "" if now.is_open else " Messages accepted before are fanned out first."
            self.stdout.write(f"Messages are spread over {now.partitions} partitions.{text}")

    def _change(self, number: int) -> None:
        if not 1 <= number <= PARTITIONS_MAX:
            raise CommandError(f"The number must be from 1 to {PARTITIONS_MAX}.")
        before = partitions.current()
        if has_workers() and number > before.partitions:
            _take_queues(range(before.partitions), range(before.partitions, number))
        if repartitioning.change(number).is_open:
            return  # it was this number before
        if not local_api.is_embedded():  # the server has the sessions, and does the rest
            self._complete()

    def _complete(self) -> None:
        report_at = time.monotonic() + REPORT_EVERY
        while (progress := repartitioning.advance()) is not None:
            if progress.is_open:
                wake(range(progress.partitions))
                return
            if time.monotonic() > report_at:
                self.stderr.write(_reason(progress))
                report_at += REPORT_EVERY
            time.sleep(POLL_INTERVAL)


def _take_queues(old: range, new: range) -> None:
    """Have workers that take the tasks of all partitions also take those of new ones.

    Without this they would do so when they are started with the new number.
    """
    try:
        processes = get_registry().processes()
    except Unavailable:
        return
    names = [one.name for one in processes if one.kind == "worker" and {*old} <= {*one.partitions}]
    for number in new if names else ():
        app.control.add_consumer(queue_of(number), destination=names)


def _reason(progress: Progress) -> str:
    if progress.transactions:
        return (
            f"Waiting for {progress.transactions} transactions that have pushed and are still "
            "open: see pg_stat_activity."
        )
    return "Waiting for messages that were accepted before: see imgo_outbox, and the workers."
