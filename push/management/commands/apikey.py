"""`manage.py apikey NAME`: make an API key, list them, revoke one."""

from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from accounts.models import SCOPES, ApiKey
from imgo_site.times import utc_text
from push.management.console import ImgoCommand, add_json


class Command(ImgoCommand):
    """Command that makes, lists and revokes API keys."""

    help = (
        "Make an API key and print its text, which is shown only once. With --list: list the API "
        "keys. With --revoke: revoke one. Scopes: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in SCOPES.items())
        + "."
    )
    examples: ClassVar = ("shop", "shop --scope push --scope read", "--list", "shop --revoke")
    data: ClassVar = (
        '{"id": 7, "name": "shop", "hint": "x3Zq", "scopes": ["push"], '
        '"created_at": "2026-11-26T08:00:00Z", "revoked_at": null, "api_key": "imgo_…"}',
        '[{"id": 7, "name": "shop", "hint": "x3Zq", "scopes": ["push"], '
        '"created_at": "2026-11-26T08:00:00Z", "revoked_at": null}]',
        '{"id": 7, "name": "shop", "hint": "x3Zq", "scopes": ["push"], '
        '"created_at": "2026-11-26T08:00:00Z", "revoked_at": "2026-11-26T09:00:00Z"}',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the name or id, the scopes, and what to do."""
        parser.add_argument(
            "name", nargs="?", help="name of the caller; with --revoke the key's name or id"
        )
        parser.add_argument(
            "--scope", action="append", help="a scope of the key (default: push); may be repeated"
        )
        group = parser.add_mutually_exclusive_group()
        group.add_argument("--list", action="store_true", help="list the API keys, without texts")
        group.add_argument("--revoke", action="store_true", help="revoke the key")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Make, list or revoke. For a new API key, print only its text, for use in scripts."""
        name = options["name"]
        if options["list"] and name is not None:
            raise CommandError("--list shows all API keys: it goes without a name.", returncode=2)
        if options["scope"] and (options["list"] or options["revoke"]):
            raise CommandError("--scope is only for a new API key.", returncode=2)
        if options["list"]:
            self._list(as_json=options["json"])
        elif name is None:
            raise CommandError("Name the caller that will use it: apikey NAME.", returncode=2)
        elif options["revoke"]:
            row = ApiKey.objects.revoke(name)
            if options["json"]:
                self.print_json(_as_dict(row))
            else:
                self.stdout.write(f"The API key {row.pk} ({row.name!r}) is revoked.")
        else:
            row, text = ApiKey.objects.issue(name, options["scope"] or ["push"])
            if options["json"]:
                self.print_json({**_as_dict(row), "api_key": text})
            else:
                self.stdout.write(text)

    def _list(self, *, as_json: bool) -> None:
        rows = list(ApiKey.objects.order_by("pk"))
        if as_json:
            self.print_json([_as_dict(row) for row in rows])
            return
        if not rows:
            raise CommandError("There are no API keys: 'manage.py apikey NAME' makes one.")
        self.print_table(
            ("id", "name", "ends in", "scopes", "made", "revoked"),
            ((row.pk, row.name, row.hint, ",".join(row.scopes), *_times(row)) for row in rows),
        )


def _times(row: ApiKey) -> tuple[str, str]:
    return utc_text(row.created_at), utc_text(row.revoked_at) if row.revoked_at else ""


def _as_dict(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": row.name,
        "hint": row.hint,
        "scopes": row.scopes,
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }
