"""`manage.py kick KEY`: close the sessions of a key, or one session."""

from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from imgo_site.names import check_name
from push.management import local_api
from push.management.console import ImgoCommand, add_json
from push.operations import kick_key, kick_session
from push.registry.select import get_registry


class Command(ImgoCommand):
    """Command that closes sessions."""

    help = (
        "Close all sessions of a key, or one session, with a code after which clients do not come "
        "back by themselves. Exit status 1 when there is none."
    )
    examples: ClassVar = ("alice", "--session 5938fe7d-12")
    data: ClassVar = ('{"closed": 2}',)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the key or the session."""
        target = parser.add_mutually_exclusive_group(required=True)
        target.add_argument("key", nargs="?", help="the subscriber key")
        target.add_argument(
            "--session", metavar="ID", help="a session's id, as 'sessions' shows it"
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Close the sessions, and print their number."""
        if options["session"] is not None:
            self._kick_session(options["session"])
            count, report = 1, f"The node of session {options['session']} was told to close it."
        else:
            key = check_name(options["key"], "key")
            count = self._kick_key(key)
            report = f"Closing {count} session{'' if count == 1 else 's'} of {key!r}."
        if options["json"]:
            self.print_json({"closed": count})
        if not count:
            raise CommandError(f"The key {options['key']!r} has no sessions.")
        if not options["json"]:
            self.stdout.write(report)

    @staticmethod
    def _kick_key(key: str) -> int:
        if local_api.is_embedded():
            path = local_api.path_of("keys", key, "sessions")
            return int(local_api.call("DELETE", path)["closed"])
        return kick_key(key)

    @staticmethod
    def _kick_session(session_id: str) -> None:
        if local_api.is_embedded():
            raise CommandError(
                "Without REDIS_URL only all sessions of a key can be closed: 'manage.py kick KEY', "
                "or DELETE /api/v1/keys/{key}/sessions."
            )
        node = session_id.partition("-")[0]
        if node not in {entry.id for entry in get_registry().nodes()}:
            raise CommandError(f"There is no live node that could hold session {session_id!r}.")
        kick_session(session_id)
