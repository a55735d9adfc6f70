"""`manage.py hooks`: show the hooks, and ask the backend each question once."""

import asyncio
import time
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from accounts.auth_body import AuthBody
from accounts.identity import Facts, Identity
from imgo_site.errors import ImgoError, Unavailable
from push.hooks import backend
from push.hooks.client import Hook, HookClient
from push.management.console import ImgoCommand, add_json

KEY, ROOM = "imgo-ping", "imgo-ping"  # of the questions that `ping` asks


class Command(ImgoCommand):
    """Command that lists the hooks, or tries them."""

    help = (
        "List the hooks and their URLs. With 'ping', ask your backend each question once, for a "
        "client that it does not know, and show its answer. A refusal is a good answer. Exit "
        "status 1 if a hook has no usable answer."
    )
    examples: ClassVar = ("", "ping", "ping --json")
    data: ClassVar = (
        '[{"hook": "authenticate", "url": "https://shop.example.com/imgo/hook/authenticate/", '
        '"ok": true, "answer": "refused", "ms": 12.5}]',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the action and the form of the output."""
        parser.add_argument("action", nargs="?", choices=["ping"], help="ask the backend")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print a line for each hook that has a URL."""
        used = [hook for hook in Hook if hook.url]
        rows: list[dict[str, Any]] = [{"hook": hook.value, "url": hook.url} for hook in used]
        if options["action"] == "ping":
            rows = asyncio.run(_ping_all(used))
        if options["json"]:
            self.print_json(rows)
        elif not rows:
            self.stdout.write("No hook has a URL: see AUTHENTICATE_URL in the settings.")
        elif options["action"] == "ping":
            header = ("HOOK", "URL", "ANSWER", "MS")
            cells = [(row["hook"], row["url"], row["answer"], row["ms"]) for row in rows]
            self.print_table(header, cells)
        else:
            self.print_table(("HOOK", "URL"), [(row["hook"], row["url"]) for row in rows])
        if failed := [row["hook"] for row in rows if row.get("ok") is False]:
            raise CommandError(f"No usable answer: {', '.join(map(str, failed))}.")


async def _ping_all(hooks: list[Hook]) -> list[dict[str, Any]]:
    client = HookClient()
    try:
        return [await _ping(client, hook) for hook in hooks]
    finally:
        await client.close()


async def _ping(client: HookClient, hook: Hook) -> dict[str, Any]:
    """Return the row of one hook: its answer in words, and how long it took."""
    begin, is_ok = time.monotonic(), True
    try:
        answer = await _ask(client, hook)
    except Unavailable as error:
        answer, is_ok = str(error.__cause__ or error.message), False
    except ImgoError as error:
        answer = f"refused: {error.message}"
    passed = (time.monotonic() - begin) * 1000
    row = {"hook": hook.value, "url": hook.url, "ok": is_ok, "answer": answer}
    return row | {"ms": round(passed, 1)}


async def _ask(client: HookClient, hook: Hook) -> str:
    identity = Identity(KEY, source=backend.SOURCE)
    match hook:
        case Hook.AUTHENTICATE:
            body = AuthBody(token=KEY, raw=KEY.encode(), is_bare=True)
            found = await backend.authenticate(client, body, Facts("tcp"), lambda: False)
            return f"the key {found.key!r}"
        case Hook.AUTHORIZE_ROOM:
            allowed = await backend.authorize_room(client, identity, ROOM, lambda: False)
            return "allowed" if allowed else "forbidden"
        case Hook.RECEIVE:
            reply = await backend.receive(client, identity, 4, {"ping": True})
            return f"the reply {reply!r}"
