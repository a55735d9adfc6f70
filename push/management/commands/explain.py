"""`manage.py explain KEY [ID]`: why did this key not get it?"""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error as DatabaseError

from imgo_site.errors import BadRequest
from imgo_site.names import INT64_MAX, check_name, check_number
from push import explain


class Command(BaseCommand):
    """Explain."""

    help = "Say in plain words what became of a message for a key, or how a key stands."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """A key, and a push's id for that one alone."""
        parser.add_argument("key", help="the subscriber key")
        parser.add_argument("id", nargs="?", help="a push's id; without it, the last ones")
        parser.add_argument("--last", type=int, default=10, help="how many of the last (10)")
        parser.add_argument("--json", action="store_true", help="print data instead of sentences")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Print sentences, one a line."""
        try:
            key, number = check_name(options["key"], "key"), None
            if options["id"] is not None:
                number = check_number(options["id"], "A push's id", lowest=1, highest=INT64_MAX)
            last = check_number(options["last"], "--last", lowest=1, highest=1000)
            if options["json"]:
                data = explain.as_data(key, number, last)
                self.stdout.write(json.dumps(data, cls=DjangoJSONEncoder, indent=2))
                return
            lines = explain.of_key(key, last) if number is None else explain.of_message(key, number)
        except BadRequest as error:
            raise CommandError(error.message) from None
        except DatabaseError as error:
            raise CommandError(f"The database cannot be reached: {error}") from None
        self.stdout.write("\n".join(lines))
