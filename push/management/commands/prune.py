"""`manage.py prune`: settle what has expired and forget what is past its time, now."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, ClassVar

from django.db.models.functions import Now

from offline import retention, settlement
from offline.models import Message, Pending
from push.management.console import ImgoCommand, add_json, progress_bar
from push.models import Dedupe


class Command(ImgoCommand):
    """Prune."""

    help = (
        "Settle messages that have expired, and forget messages, records and dedupe ids whose time "
        "is over. Nodes do this by themselves; this is for when none runs, or a lot has piled up."
    )
    examples: ClassVar = ("", "--json")
    data: ClassVar = ('{"expired": 12, "messages": 400, "dedupe_ids": 3}',)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Nothing to choose."""
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Say how much it was."""
        expired = Pending.objects.filter(expires_at__lte=Now()).count()
        expired = _all("expired", expired, settlement.expire_batch)
        over = Message.objects.filter(keep_until__lte=Now()).count()
        over = _all("messages", over, retention.prune_batch)
        forgotten = _all("dedupe ids", Dedupe.objects.overdue().count(), Dedupe.objects.forget)
        if options["json"]:
            self.print_json({"expired": expired, "messages": over, "dedupe_ids": forgotten})
        else:
            self.stdout.write(
                f"{expired} deliveries have expired; {over} messages with their records and "
                f"{forgotten} dedupe ids are forgotten."
            )


def _all(title: str, total: int, batch: Callable[[], int]) -> int:
    """Call `batch` until it finds no more; how many it was."""
    done = 0
    with progress_bar(title, total) as steps:
        while count := batch():
            done += count
            steps.advance(count)
    return done
