"""`manage.py hooks`: list the hooks and their state, or call each of them once."""

import asyncio
import time
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import CommandError

from accounts.auth_body import AuthBody
from accounts.identity import Facts, Identity
from imgo_site.errors import ImgoError, Unavailable
from push.checks.hooks import check_hooks
from push.hooks import backend
from push.hooks.client import Answer, Hook, HookClient
from push.hooks.figures import empty_row
from push.management import local_api
from push.management.console import ImgoCommand, add_json, refuse_wrong_settings

KEY, ROOM = "imgo-ping", "imgo-ping"  # of the questions that `ping` asks


class Command(ImgoCommand):
    """Command that lists the hooks, or tries them."""

    help = (
        "List the hooks with their URLs, and the calls that the live nodes have made since they "
        "started. With 'ping', call each hook once from this machine, for a client that your "
        "backend does not know, and print the answer. A refusal is a usable answer. Exit status 1 "
        "if a hook gives none."
    )
    examples: ClassVar = ("", "ping", "ping --json")
    data: ClassVar = (
        '[{"hook": "authenticate", "url": "https://shop.example.com/imgo/hook/authenticate/", '
        '"calls": 1207, "failures": {"timeout": 3}, "mean_ms": 12.5, "open_on": []}]',
        '[{"hook": "authenticate", "url": "https://shop.example.com/imgo/hook/authenticate/", '
        '"ok": true, "answer": "refused", "ms": 12.5}]',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the action and the form of the output."""
        parser.add_argument("action", nargs="?", choices=["ping"], help="call each hook once")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Print a line for each hook that has a URL."""
        refuse_wrong_settings(check_hooks())
        used = [hook for hook in Hook if hook.url]
        rows: list[dict[str, Any]] = [{"hook": hook.value, "url": hook.url} for hook in used]
        unknown = ""
        if options["action"] == "ping":
            rows = asyncio.run(_ping_all(used))
        elif used:
            unknown = _add_figures(rows)
        if options["json"]:
            self.print_json(rows)
        elif not rows:
            self.stdout.write("No hook has a URL: see AUTHENTICATE_URL in the settings.")
        elif options["action"] == "ping":
            header = ("HOOK", "URL", "ANSWER", "MS")
            cells = [(row["hook"], row["url"], row["answer"], row["ms"]) for row in rows]
            self.print_table(header, cells)
        else:
            columns = ("HOOK", "URL", "CALLS", "FAILURES", "MEAN MS", "STATE")
            self.print_table(columns, [_cells(row) for row in rows])
        if unknown:
            self.stderr.write(f"The calls of the nodes are not known here: {unknown}")
        if failed := [row["hook"] for row in rows if row.get("ok") is False]:
            raise CommandError(f"No usable answer: {', '.join(map(str, failed))}.")


def _add_figures(rows: list[dict[str, Any]]) -> str:
    """Add the nodes' figures, None if they are not known; return why not, "" if they are."""
    try:
        rows_by_hook = {row["hook"]: row for row in local_api.hook_rows()}
    except ImgoError as error:
        for row in rows:
            row.update(calls=None, failures=None, mean_ms=None, open_on=None)
        return error.message
    for row in rows:
        row.update(rows_by_hook.get(row["hook"]) or empty_row(row["hook"]))
    return ""


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of a hook with its figures, which are some seconds old."""
    if row["calls"] is None:
        return row["hook"], row["url"], "-", "-", "-", "-"
    failures = ", ".join(f"{count} {name}" for name, count in sorted(row["failures"].items()))
    mean = "-" if row["mean_ms"] is None else row["mean_ms"]
    state = f"circuit open on {', '.join(row['open_on'])}" if row["open_on"] else "ok"
    return row["hook"], row["url"], row["calls"], failures or "-", mean, state


class _Pinger(HookClient):
    """Client that remembers the last answer."""

    last = Answer(0, None)

    async def call(self, *args: Any, **kwargs: Any) -> Answer:
        self.last = await super().call(*args, **kwargs)
        return self.last


async def _ping_all(hooks: list[Hook]) -> list[dict[str, Any]]:
    client = _Pinger()
    try:
        return [await _ping(client, hook) for hook in hooks]
    finally:
        await client.close()


async def _ping(client: _Pinger, hook: Hook) -> dict[str, Any]:
    """Return the row of one hook: its answer in words, and how long it took."""
    begin, is_ok = time.monotonic(), True
    try:
        answer = await _ask(client, hook)
    except Unavailable as error:
        answer, is_ok = str(error.__cause__ or error.message), False
    except ImgoError:
        detail = f": {client.last.said}" if client.last.said else ""
        answer = f"refused with status {client.last.status}{detail}"
    passed = (time.monotonic() - begin) * 1000
    row = {"hook": hook.value, "url": hook.url, "ok": is_ok, "answer": answer}
    return row | {"ms": round(passed, 1)}


async def _ask(client: HookClient, hook: Hook) -> str:
    identity = Identity(KEY, source=backend.SOURCE)
    match hook:
        case Hook.AUTHENTICATE:
            body = AuthBody(token=KEY, raw=KEY.encode(), is_bare=True)
            client_identity = await backend.authenticate(client, body, Facts("tcp"), lambda: False)
            return f"the key {client_identity.key!r}"
        case Hook.AUTHORIZE_ROOM:
            allowed = await backend.authorize_room(client, identity, ROOM, lambda: False)
            return "allowed" if allowed else "forbidden"
        case Hook.RECEIVE:
            reply = await backend.receive(client, identity, 4, {"ping": True})
            return f"the reply {reply!r}"
