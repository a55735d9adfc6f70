"""`manage.py explain KEY [ID]`: explain why a key did or did not get a message."""

import sys
from argparse import ArgumentParser
from datetime import datetime
from typing import Any, ClassVar

from imgo_site.names import INT64_MAX, check_name, check_number
from offline import history
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.management.local_api import hook_rows
from push.registry.base import Entry
from push.status import explain, key_sessions


class Command(ImgoCommand):
    """Command that explains the history of a message for a key."""

    help = (
        "Explain what became of a message for a key. Without an id: the key's sessions, the number "
        "of its pending messages, and what became of its recent messages. Exit status 1 if there "
        "is no record of the message that the id names. A key that imgo has never seen is no "
        "error."
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
        parser.add_argument(
            "id", nargs="?", help="a message's id; without it, the recent messages of the key"
        )
        parser.add_argument(
            "--last",
            type=int,
            default=10,
            metavar="N",
            help="number of recent messages to show (default 10)",
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print the explanation, one sentence a line."""
        key, number = check_name(options["key"], "key"), None
        if options["id"] is not None:
            number = check_number(options["id"], "A push's id", lowest=1, highest=INT64_MAX)
        last = check_number(options["last"], "--last", lowest=1, highest=1000)
        if options["json"]:
            self.print_json(explain.as_data(key, number, last, _sessions_of, hook_rows))
        elif number is None:
            self.stdout.write("\n".join(explain.of_key(key, last, _sessions_of, hook_rows)))
        else:
            self.stdout.write("\n".join(explain.of_message(key, number, _sessions_of, hook_rows)))
        if number is not None and not (history.find_scheduled(number) or history.find(number)):
            sys.exit(1)


def _sessions_of(key: str) -> list[Entry]:
    """Return the sessions of a key; without Redis, ask the local server, which alone knows them.

    Raises an `ImgoError` if they are not known.
    """
    if not local_api.is_embedded():
        return key_sessions.registered(key)
    return [
        Entry(**{**row, "key": key, "since": datetime.fromisoformat(row["since"]).timestamp()})
        for row in local_api.call("GET", local_api.path_of("keys", key))["sessions"]
    ]
