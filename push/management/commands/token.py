"""`manage.py token KEY`: give a subscriber key a token."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Token
from imgo_site.errors import BadRequest


class Command(BaseCommand):
    """Make a token."""

    help = "Give a subscriber key a token, replacing the one it had, and print it this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The key, and what its sessions may do."""
        parser.add_argument("key", help="the subscriber key")
        parser.add_argument("--expires-in", type=int, help="seconds; for ever when not given")
        parser.add_argument("--room", action="append", help="a room it may join; * for any part")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Print the token's text alone, for use in scripts."""
        try:
            _, text = Token.objects.issue(
                options["key"], expires_in=options["expires_in"], rooms=options["room"]
            )
        except BadRequest as error:
            raise CommandError(error.message) from None
        self.stdout.write(text)
