"""`manage.py rooms [ROOM]`: list the rooms that have sessions, or the sessions in one room."""

from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.errors import NotFound
from imgo_site.names import check_name
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.registry.select import get_registry


class Command(ImgoCommand):
    """Command that lists rooms."""

    help = (
        "List the rooms with somebody in them, fullest first; with a room, the sessions in it. "
        "Exit status 1 when there is nobody."
    )
    examples: ClassVar = ("", "lobby", "lobby --json")
    data: ClassVar = (
        '[{"room": "lobby", "sessions": 2}]',
        '[{"key": "alice", "session": "5938fe7d-12"}]',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the room."""
        parser.add_argument("room", nargs="?", help="the room; without it, all rooms")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print one line for each room or session."""
        room = options["room"]
        if room is None:
            columns, rows, nothing = ("room", "sessions"), rooms(), "Nobody is in any room."
        else:
            check_name(room, "room")
            columns, rows = ("key", "session"), members(room)
            nothing = f"Nobody is in the room {room!r}."
        if options["json"]:
            self.print_json(rows)
        if not rows:
            raise CommandError(nothing)
        if not options["json"]:
            self.print_table(columns, ([row[name] for name in columns] for row in rows))


def rooms() -> list[dict[str, Any]]:
    """Return the rooms and their numbers of sessions, fullest first."""
    if local_api.is_embedded():
        return local_api.all_rows(local_api.path_of("rooms"))
    by_size = sorted(get_registry().rooms().items(), key=lambda item: (-item[1], item[0]))
    return [{"room": room, "sessions": count} for room, count in by_size]


def members(room: str) -> list[dict[str, Any]]:
    """Return the sessions in a room, with their keys."""
    if local_api.is_embedded():
        try:
            return local_api.all_rows(local_api.path_of("rooms", room))
        except NotFound:
            return []
    return [{"key": key, "session": session} for key, session in get_registry().members(room)]
