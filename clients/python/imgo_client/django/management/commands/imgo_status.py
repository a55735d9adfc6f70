"""`manage.py imgo_status`: check server, API key, token secret and outbox."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from imgo_client.django.conf import options
from imgo_client.django.status import Line, report

MAX_AGE = 60.0  # seconds that a push may wait before it is reported as a problem


class Command(BaseCommand):
    """Reports one fact a line; status 1 if one is not in order."""

    help = "Check the connection to the imgo server and the outbox. Exit status 1: a problem."

    def add_arguments(self, parser: ArgumentParser) -> None:  # noqa: D102
        parser.add_argument(
            "--max-age",
            type=float,
            default=MAX_AGE,
            help="seconds that the oldest push may wait (default: %(default)g)",
        )

    def handle(self, *_: Any, max_age: float, **__: Any) -> None:  # noqa: D102
        problems = 0
        for line in report(options(), max_age):
            problems += line.is_good is False
            self.stdout.write(self._style_of(line)(f"{line.name}: {line.text}"))
        if problems:
            plural = "" if problems == 1 else "s"
            raise CommandError(f"{problems} problem{plural}.", returncode=1)

    def _style_of(self, line: Line) -> Any:
        if line.is_good is None:
            return self.style.WARNING
        return self.style.SUCCESS if line.is_good else self.style.ERROR
