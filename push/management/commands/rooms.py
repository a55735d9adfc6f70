"""`manage.py rooms [ROOM]`: list the rooms that have sessions, or who is in one room.

`--policies` lists the policies of rooms instead.
"""

import json
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.errors import NotFound
from imgo_site.names import check_name
from imgo_site.room_policies import as_row, policies, policy_of
from push.checks.rooms import check_rooms
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.presence.select import get_presence
from push.registry.select import get_registry

PAGE = 1_000  # members of one query
NO_POLICY = (
    "No room has a policy: ROOMS is empty in the settings of this command. If the nodes get it "
    "from the environment, set IMGO_ROOMS here too."
)


class Command(ImgoCommand):
    """Command that lists rooms."""

    help = (
        "List the rooms that have sessions, fullest first; with a room, the sessions in it, or its "
        "keys if it has presence. "
        "Exit status 1 if there are none. With --policies, list the policies of ROOMS instead, "
        "in the order in which they are tried."
    )
    examples: ClassVar = ("", "lobby", "lobby --json", "--policies")
    data: ClassVar = (
        '[{"room": "lobby", "sessions": 2}]',
        '[{"key": "alice", "session": "5938fe7d-12"}]',
        '[{"key": "alice", "info": {"name": "Alice"}}]',
        '[{"pattern": "chat-*", "history": 100, "history_ttl": 86400, "rewind_max": 100, '
        '"max_sessions": 0, "client_publish": "nobody", "presence": false, '
        '"presence_events": false}]',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the room."""
        parser.add_argument("room", nargs="?", help="the room; without it, all rooms")
        parser.add_argument("--policies", action="store_true", help="list the policies of rooms")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print one line for each room, session or policy."""
        if options["policies"]:
            self._print_policies(options)
            return
        room = options["room"]
        if room is None:
            columns, rows, nothing = ("room", "sessions"), rooms(), "Nobody is in any room."
        else:
            check_name(room, "room")
            columns, rows = ("key", "session"), members(room)
            if policy_of(room).presence:
                columns = ("key", "info")
            nothing = f"Nobody is in the room {room!r}."
        if options["json"]:
            self.print_json(rows)
        if not rows:
            raise CommandError(nothing)
        if not options["json"]:
            self.print_table(columns, ([_text(row[name]) for name in columns] for row in rows))

    def _print_policies(self, options: dict[str, Any]) -> None:
        """Print the policies. Raises `CommandError` with one line for each mistake in ROOMS."""
        room = options["room"]
        if room is not None:
            check_name(room, "room")
        mistakes = [message for message in check_rooms() if message.is_serious()]
        if mistakes:
            raise CommandError("\n".join(f"{error.msg} {error.hint}" for error in mistakes))
        listed = policies() if room is None else [policy_of(room)]
        rows = [as_row(policy) for policy in listed]
        if options["json"]:
            self.print_json(rows)
        elif not rows:
            self.stdout.write(NO_POLICY)
        else:
            self.print_table(tuple(rows[0]), (list(row.values()) for row in rows))


def rooms() -> list[dict[str, Any]]:
    """Return the rooms and their numbers of sessions, fullest first."""
    if local_api.is_embedded():
        return local_api.all_rows(local_api.path_of("rooms"))
    by_size = sorted(get_registry().rooms().items(), key=lambda item: (-item[1], item[0]))
    return [{"room": room, "sessions": count} for room, count in by_size]


def members(room: str) -> list[dict[str, Any]]:
    """Return the sessions in a room, with their keys; with presence, the keys and their info."""
    if local_api.is_embedded():
        try:
            return local_api.all_rows(local_api.path_of("rooms", room))
        except NotFound:
            return []
    if policy_of(room).presence:
        return present(room)
    return [{"key": key, "session": session} for key, session in get_registry().members(room)]


def present(room: str) -> list[dict[str, Any]]:
    """Return the keys in a room with presence, and their info."""
    rows: list[dict[str, Any]] = []
    while True:
        page = get_presence().page(room, slice(len(rows), len(rows) + PAGE))
        rows += [{"key": key, "info": info} for key, info in page.parsed()]
        if len(page.members) < PAGE:
            return rows


def _text(value: Any) -> Any:
    """Return a value for a table: JSON for an object."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
