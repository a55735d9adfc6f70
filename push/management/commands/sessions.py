"""`manage.py sessions [KEY]`: list the sessions of a key, or the live nodes."""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.names import check_name
from imgo_site.times import utc_text
from push.api.v1 import node_json, session_json
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.registry.select import get_registry

SESSION = ("id", "node", "transport", "address", "platform", "since")
NODE = ("id", "number", "name", "sessions", "since", "draining")


class Command(ImgoCommand):
    """Command that lists sessions and nodes."""

    help = (
        "List the sessions of a key, oldest first; without a key, the live nodes and how many "
        "sessions each has. Exit status 1 when there are none."
    )
    examples: ClassVar = ("", "alice", "alice --json")
    data: ClassVar = (
        '[{"id": "5938fe7d", "number": 1, "name": "web1:8000", '
        '"since": "2026-11-26T08:20:57.600Z", "sessions": 812, "draining": false}]',
        '[{"id": "5938fe7d-12", "node": "5938fe7d", "transport": "websocket", '
        '"address": "192.0.2.7", "platform": "ios", "since": "2026-11-26T08:27:19.200Z"}]',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the key."""
        parser.add_argument("key", nargs="?", help="the subscriber key; without it, the nodes")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print one line for each session or node."""
        key = options["key"]
        if key is None:
            columns: tuple[str, ...] = NODE
            rows, nothing = nodes(), "No node is running."
        else:
            check_name(key, "key")
            columns, rows = SESSION, sessions(key)
            nothing = f"The key {key!r} has no sessions."
        if options["json"]:
            self.print_json(rows)
        if not rows:
            raise CommandError(nothing)
        if not options["json"]:
            self.print_table(columns, ([_cell(row, name) for name in columns] for row in rows))


def nodes() -> list[dict[str, Any]]:
    """Return the live nodes."""
    if local_api.is_embedded():
        rows: list[dict[str, Any]] = local_api.call("GET", local_api.path_of("nodes"))["results"]
        return rows
    return [dict(node_json(node)) for node in get_registry().nodes()]


def sessions(key: str) -> list[dict[str, Any]]:
    """Return the sessions of a key, oldest first."""
    if local_api.is_embedded():
        rows: list[dict[str, Any]] = local_api.call("GET", local_api.path_of("keys", key))[
            "sessions"
        ]
        return rows
    return [dict(session_json(entry)) for entry in get_registry().sessions(key)]


def _cell(row: dict[str, Any], name: str) -> str:
    """Return a field as text for the table; `since` in whole seconds of UTC."""
    if name == "since":
        # The registry returns a datetime, a server's answer text.
        return utc_text(datetime.fromisoformat(str(row[name])))
    if name == "draining":
        return "yes" if row[name] else "no"
    return str(row[name])
