"""`manage.py explain KEY [ID]`: explain why a key did or did not get a message."""

import sys
from argparse import ArgumentParser
from typing import Any, ClassVar

from imgo_site.names import INT64_MAX, check_name, check_number
from offline import history
from push.management.console import ImgoCommand, add_json
from push.status import explain


class Command(ImgoCommand):
    """Command that explains the history of a message for a key."""

    help = (
        "Say in plain words what became of a message for a key, or how a key stands. Exit status 1 "
        "when there is no record of the message."
    )
    examples: ClassVar = ("alice", "alice 1043", "alice --json")
    data: ClassVar = (
        '{"key": "alice", "explanation": ["…"], "messages": [{"id": "1043", '
        '"created_at": "2026-11-26T08:00:00Z", "fan_out": {"state": "done"}, '
        '"key": "alice", "state": "acknowledged", "at": "2026-11-26T08:00:01Z", '
        '"session": "5938fe7d-12", "how": "kernel", "sent": [{"session": "5938fe7d-12", '
        '"at": "2026-11-26T08:00:01Z"}]}]}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the key, and the id of a push to explain only that one."""
        parser.add_argument("key", help="the subscriber key")
        parser.add_argument("id", nargs="?", help="a push's id; without it, the last ones")
        parser.add_argument("--last", type=int, default=10, help="how many of the last (10)")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print the explanation, one sentence a line."""
        key, number = check_name(options["key"], "key"), None
        if options["id"] is not None:
            number = check_number(options["id"], "A push's id", lowest=1, highest=INT64_MAX)
        last = check_number(options["last"], "--last", lowest=1, highest=1000)
        if options["json"]:
            self.print_json(explain.as_data(key, number, last))
        else:
            lines = explain.of_key(key, last) if number is None else explain.of_message(key, number)
            self.stdout.write("\n".join(lines))
        if number is not None and history.find(number) is None:
            sys.exit(1)
