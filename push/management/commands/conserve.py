"""`manage.py conserve`: check that every accepted message is accounted for."""

import sys
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from offline import conservation
from push.management.console import ImgoCommand, add_json, progress_bar

SHOWN = 20  # messages that do not balance


class Command(ImgoCommand):
    """Command that checks the balance of messages."""

    help = (
        "Check that no delivery is missing: accepted = received + acknowledged + expired + dropped "
        "+ pending. It covers all messages whose records are kept. Exit status 1 if a delivery is "
        "missing."
    )

    examples: ClassVar = ("", "--latest 100000 --json")
    data: ClassVar = (
        '{"messages": 3, "accepted": 4, "pending": 1, "settled": {"received": 2}, '
        '"missing": 1, "unbalanced": [{"id": "1043", "accepted": 2, "found": 1}]}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the number of messages to check."""
        parser.add_argument(
            "--latest",
            type=int,
            default=0,
            metavar="N",
            help="check about the latest N messages (0: all)",
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print the balance, and the messages that do not balance."""
        if options["latest"] < 0:
            raise CommandError("--latest must be 0 or more.")
        total, wrong = conservation.Balance(), []
        first, last = conservation.bounds(options["latest"])
        with progress_bar("messages", last - first) as steps:
            for start, end in conservation.slices(first, last):
                total.add(conservation.balance_of_slice(start, end))
                # A query of its own, which may see more messages settled than the sums did.
                wrong += conservation.unbalanced(start, end)
                steps.at(end - first)
        if options["json"]:
            rows = [{"id": str(i), "accepted": a, "found": f} for i, a, f in wrong]
            self.print_json({**total.as_dict(), "unbalanced": rows})
        else:
            self._print(total, wrong)
        if total.missing or wrong:
            sys.exit(1)

    def _print(self, total: conservation.Balance, wrong: list[tuple[int, int, int]]) -> None:
        rows = [("accepted", total.accepted), ("pending", total.pending)]
        rows += sorted(total.settled.items())
        rows += [("missing", total.missing)]
        self.stdout.write(f"{total.messages} stored messages; deliveries:")
        for name, count in rows:
            self.stdout.write(f"  {name:<24} {count:>12}")
        for message_id, accepted, accounted in wrong[:SHOWN]:
            self.stdout.write(
                f"Message {message_id}: accepted for {accepted} keys, accounted for {accounted}."
            )
        if len(wrong) > SHOWN:
            self.stdout.write(f"... and {len(wrong) - SHOWN} more.")
        if not total.missing and not wrong:
            self.stdout.write("Everything is accounted for.")
