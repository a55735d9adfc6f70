"""`manage.py token KEY`: make the token of a key, or revoke it."""

import json
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from accounts.models import Token
from imgo_site.conf import conf
from imgo_site.names import INT64_MAX, check_number
from push.management.console import ImgoCommand, add_json
from push.management.local_api import is_embedded
from push.operations import revoke_token


class Command(ImgoCommand):
    """Command that makes or revokes a token."""

    help = (
        "Make a token for a subscriber key, and print its text, which is shown only once. It "
        "replaces the token that the key had. With --revoke: delete the key's token and close its "
        "sessions."
    )
    examples: ClassVar = (
        "alice",
        "alice --expires-in 3600 --room 'team-*'",
        "1 --join 7",
        """alice --info '{"name": "Alice"}'""",
        "alice --revoke",
    )
    data: ClassVar = (
        '{"key": "alice", "token": "…", "rooms": ["team-*"], "join": [], "info": {}, '
        '"expires_at": null}',
        '{"key": "alice", "revoked": true}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the key, and the permissions of its sessions."""
        parser.add_argument("key", help="the subscriber key")
        parser.add_argument(
            "--expires-in",
            type=int,
            metavar="SECONDS",
            help="lifetime of the token (default: never expires)",
        )
        parser.add_argument(
            "--room",
            action="append",
            help="a room that its sessions may join; * matches any characters; may be repeated",
        )
        parser.add_argument(
            "--join",
            action="append",
            help="a room that its sessions are in from the start; may be repeated",
        )
        parser.add_argument(
            "--info",
            metavar="JSON",
            help="an object, which others in a room with presence see",
        )
        parser.add_argument("--revoke", action="store_true", help="delete the key's token")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Make or revoke the token. Print only the text of a new one, for use in scripts."""
        expires_in, rooms, join = options["expires_in"], options["room"], options["join"]
        if options["revoke"]:
            if (expires_in, rooms, join, options["info"]) != (None, None, None, None):
                raise CommandError(
                    "--revoke deletes the token. It cannot be used with --expires-in, --room, "
                    "--join or --info.",
                    returncode=2,
                )
            self._revoke(options["key"], as_json=options["json"])
            return
        if expires_in is not None:
            check_number(expires_in, "--expires-in", lowest=1, highest=INT64_MAX)
        row, text = Token.objects.issue(
            options["key"],
            expires_in=expires_in,
            rooms=rooms,
            join=join,
            info=_info(options["info"]),
        )
        if options["json"]:
            data = {"key": row.key, "token": text, "rooms": row.rooms, "join": row.join}
            self.print_json({**data, "info": row.info, "expires_at": row.expires_at})
        else:
            self.stdout.write(text)

    def _revoke(self, key: str, *, as_json: bool) -> None:
        revoke_token(key)
        if as_json:
            self.print_json({"key": key, "revoked": True})
        else:
            self.stdout.write(f"The token of {key!r} is revoked; {_closing_text()}.")


def _info(text: str | None) -> Any:
    """Return the value of `--info`, None without it. Raises `CommandError`."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise CommandError("--info must be a JSON object.", returncode=2) from None


def _closing_text() -> str:
    """Return a text about when the open sessions of a revoked token are closed."""
    if not is_embedded():
        return "its open sessions are being closed"
    if conf.REVALIDATE_INTERVAL:
        # A session that opened during a round of checks may wait for the end of the next one.
        return f"its open sessions are closed within {2 * conf.REVALIDATE_INTERVAL:g} s"
    return "its open sessions stay open, because REVALIDATE_INTERVAL is 0"
