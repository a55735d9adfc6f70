"""`manage.py webhooks`: show the endpoints of webhooks, send parked events again, and try them."""

import asyncio
import time
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.management.base import CommandError
from django.utils import timezone

from imgo_site.names import INT64_MAX, check_number
from push.checks.webhooks import check_webhooks
from push.hooks.responses import client_class
from push.management.console import ImgoCommand, add_json, refuse_wrong_settings
from push.models import WebhookBatch
from push.webhooks import outbox
from push.webhooks.backlogs import backlogs
from push.webhooks.delivery import deliver
from push.webhooks.endpoints import Endpoint, endpoints

if TYPE_CHECKING:
    from push.hooks.http import HttpClient

PING = "ping"  # the type of the event that `ping` sends


class Command(ImgoCommand):
    """Command that lists the endpoints, unparks batches, or sends a test event."""

    help = (
        "List the endpoints of WEBHOOKS, with the events that wait or are parked. 'retry' sends "
        "parked events again, all of them or one batch. 'ping' sends a signed event of the type "
        "'ping' to each endpoint now. Exit status 1 if an endpoint does not accept it."
    )
    examples: ClassVar = ("", "retry", "retry 7", "ping", "--json")
    data: ClassVar = (
        '[{"endpoint": "https://shop.example.com/imgo/webhook/", "is_known": true, "waiting": 12, '
        '"oldest": 3.5, "parked": 0, "error": "it answered with status 503"}]',
        '{"retried": 3}',
        '[{"endpoint": "https://shop.example.com/imgo/webhook/", "ok": true, "error": "", '
        '"ms": 12.5}]',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the action, the batch, and the form of the output."""
        parser.add_argument("action", nargs="?", choices=["retry", "ping"], help="what to do")
        parser.add_argument("id", nargs="?", help="with retry: only this batch")
        add_json(parser)

    def run(self, **options: Any) -> None:
        """Do the action, or list the endpoints."""
        refuse_wrong_settings(check_webhooks())
        action, number = options["action"], options["id"]
        if number is not None and action != "retry":
            raise CommandError("Only 'retry' takes the id of a batch.")
        if action == "retry":
            self._retry(number, as_json=options["json"])
        elif action == "ping":
            self._ping(as_json=options["json"])
        else:
            self._list(as_json=options["json"])

    def _list(self, *, as_json: bool) -> None:
        rows = backlogs()
        if as_json:
            self.print_json([row.as_dict() for row in rows])
        elif not rows:
            self.stdout.write("There is no endpoint: see WEBHOOKS in the settings.")
        else:
            header = ("ENDPOINT", "WAITING", "OLDEST", "PARKED", "LAST ERROR")
            cells = [
                (
                    row.endpoint if row.is_known else f"{row.endpoint} (removed)",
                    row.waiting, f"{row.oldest:.1f} s", row.parked, row.error or "-",
                )
                for row in rows
            ]  # fmt: skip
            self.print_table(header, cells)

    def _retry(self, number: str | None, *, as_json: bool) -> None:
        rows = WebhookBatch.objects.parked()
        if number is not None:
            pk = check_number(number, "A batch's id", lowest=1, highest=INT64_MAX)
            rows = rows.filter(pk=pk)
            if not rows.exists():
                raise CommandError(f"No parked batch has the id {pk}.")
        configured = rows.filter(endpoint__in=[endpoint.url for endpoint in endpoints()])
        if number is not None and not configured.exists():
            raise CommandError("WEBHOOKS does not have the endpoint of this batch any more.")
        count = WebhookBatch.objects.unpark(configured, outbox.GIVE_UP_AFTER)
        if as_json:
            self.print_json({"retried": count})
        else:
            self.stdout.write(f"{count} batch(es) are sent again.")

    def _ping(self, *, as_json: bool) -> None:
        rows = asyncio.run(_ping_all())
        if as_json:
            self.print_json(rows)
        elif not rows:
            self.stdout.write("There is no endpoint: see WEBHOOKS in the settings.")
        else:
            cells = [(row["endpoint"], row["error"] or "accepted", row["ms"]) for row in rows]
            self.print_table(("ENDPOINT", "ANSWER", "MS"), cells)
        if failed := [str(row["endpoint"]) for row in rows if not row["ok"]]:
            raise CommandError(f"Not accepted: {', '.join(failed)}.")


async def _ping_all() -> list[dict[str, Any]]:
    http = client_class()()
    try:
        sending = [_ping(http, endpoint) for endpoint in endpoints()]
        return list(await asyncio.gather(*sending))
    finally:
        await http.close()


async def _ping(http: "HttpClient", endpoint: Endpoint) -> dict[str, Any]:
    """Return the row of one endpoint: its answer, and how long it took."""
    body = outbox.batch_body([(PING, timezone.now(), "{}")])
    begin = time.monotonic()
    result = await deliver(http, endpoint, WebhookBatch(endpoint=endpoint.url, body=body, size=1))
    passed = (time.monotonic() - begin) * 1000
    row = {"endpoint": endpoint.url, "ok": not result.error, "error": result.error}
    return row | {"ms": round(passed, 1)}
