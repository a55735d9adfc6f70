"""`manage.py prune`: settle expired messages and delete overdue records now."""

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, ClassVar

from django.db.models.functions import Now

from offline import replacement, retention, settlement
from offline.models import Message, Pending
from push.management.console import ImgoCommand, add_json, progress_bar
from push.models import Dedupe, WebhookCursor


class Command(ImgoCommand):
    """Command that settles expired messages and deletes overdue records."""

    help = (
        "Mark expired messages and delete old records: messages, records and dedupe ids that are "
        "kept no longer. Nodes do this by themselves. Use it if no node runs, or to work off a "
        "backlog."
    )
    examples: ClassVar = ("", "--json")
    data: ClassVar = ('{"expired": 12, "messages": 400, "dedupe_ids": 3}',)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add only `--json`."""
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Prune, and print the numbers."""
        expired = Pending.objects.filter(expires_at__lte=Now()).count()
        expired = _all("expired", expired, settlement.expire_batch)
        overdue = Message.objects.filter(keep_until__lte=Now()).count()
        limit = WebhookCursor.objects.limit_of_pruning()
        overdue = _all("messages", overdue, lambda: retention.prune_batch(limit))
        forgotten = _all("dedupe ids", Dedupe.objects.overdue().count(), Dedupe.objects.forget)
        while replacement.prune_batch():
            pass
        if options["json"]:
            self.print_json({"expired": expired, "messages": overdue, "dedupe_ids": forgotten})
        else:
            self.stdout.write(
                f"{expired} deliveries have expired; {overdue} messages with their records and "
                f"{forgotten} dedupe ids are deleted."
            )


def _all(title: str, total: int, batch: Callable[[], int]) -> int:
    """Call `batch` until it returns 0; return the sum of its results."""
    done = 0
    with progress_bar(title, total) as steps:
        while count := batch():
            done += count
            steps.advance(count)
    return done
