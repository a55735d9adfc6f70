"""`manage.py apikey NAME`: make an API key."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import SCOPES, ApiKey
from imgo_site.errors import BadRequest


class Command(BaseCommand):
    """Make an API key."""

    help = "Make an API key and print it this once. Scopes: " + "; ".join(
        f"{name}: {meaning}" for name, meaning in SCOPES.items()
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """A name for people, and the scopes."""
        parser.add_argument("name", help="who will use it")
        parser.add_argument(
            "--scope", action="append", help="may be given more than once; push when not given"
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Print the key's text alone, for use in scripts."""
        try:
            _, text = ApiKey.objects.issue(options["name"], options["scope"] or ["push"])
        except BadRequest as error:
            raise CommandError(error.message) from None
        self.stdout.write(text)
