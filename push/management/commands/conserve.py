"""`manage.py conserve`: is every accepted message accounted for?"""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from offline import balance

SHOWN = 20  # messages that do not balance


class Command(BaseCommand):
    """Check the balance."""

    help = (
        "Check that accepted = received + acknowledged + expired + dropped + pending, for all "
        "messages whose records are kept. Exit status 1 when something is missing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How far back."""
        parser.add_argument("--latest", type=int, default=0, help="about so many messages; 0: all")
        parser.add_argument("--json", action="store_true", help="print data instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Print the balance, and the messages that do not balance."""
        if options["latest"] < 0:
            raise CommandError("--latest must be 0 or more.")
        total, wrong = balance.Balance(), []
        try:
            first, last = balance.bounds(options["latest"])
            for start, end in balance.slices(first, last):
                found = balance.of_slice(start, end)
                total.add(found)
                # Other accounts than those of the sums: a settled message may just be on its way.
                wrong += balance.unbalanced(start, end)
                self._progress(end - first, last - first)
        except DatabaseError as error:
            raise CommandError(f"The database cannot be reached: {error}") from None
        if options["json"]:
            rows = [{"id": str(i), "accepted": a, "found": f} for i, a, f in wrong]
            self.stdout.write(json.dumps({**total.as_dict(), "unbalanced": rows}, indent=2))
        else:
            self._print(total, wrong)
        if total.missing or wrong:
            sys.exit(1)

    def _progress(self, done: int, count: int) -> None:
        if sys.stderr.isatty():
            self.stderr.write(f"\r{done / max(1, count):4.0%}", ending="")

    def _print(self, total: balance.Balance, wrong: list[tuple[int, int, int]]) -> None:
        rows = [("accepted", total.accepted), ("pending", total.pending)]
        rows += sorted(total.settled.items())
        rows += [("missing", total.missing)]
        self.stdout.write(f"{total.messages} stored messages; deliveries:")
        for name, count in rows:
            self.stdout.write(f"  {name:<24} {count:>12}")
        for message_id, accepted, found in wrong[:SHOWN]:
            self.stdout.write(
                f"Message {message_id}: accepted for {accepted} keys, accounted for {found}."
            )
        if len(wrong) > SHOWN:
            self.stdout.write(f"... and {len(wrong) - SHOWN} more.")
        if not total.missing and not wrong:
            self.stdout.write("Everything is accounted for.")
