"""Checks of `manage.py imgo_status`: server, API key, token secret and outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import Error as DatabaseError
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from imgo_client import Client, Ending, Forbidden, NotAuthenticated, PublishError
from imgo_client.django.conf import Options
from imgo_client.django.models import Outbox
from imgo_client.django.pushing import outbox_databases
from imgo_client.django.relay import make_publisher
from imgo_client.django.tokens import sign

PROBE_KEY = "imgo-status"  # subscriber key of the session that tries the token secret
PROBE_TTL = 60  # seconds
UNAUTHORIZED = 4401  # close code: the token is not valid


@dataclass(frozen=True)
class Line:
    """Result of one check. `is_good`: None if it is unknown."""

    name: str
    text: str
    is_good: bool | None = True


def report(opts: Options, max_backlog_age: float) -> Iterator[Line]:
    """Yield all results. `max_backlog_age`: seconds above which the oldest push is a problem."""
    yield from _check_api(opts)
    yield _check_token(opts)
    for alias in outbox_databases():
        yield from _check_outbox(alias, max_backlog_age)


def _check_api(opts: Options) -> Iterator[Line]:
    publisher = make_publisher(opts)
    try:
        publisher.check()
    except (NotAuthenticated, Forbidden) as error:
        yield Line("server", f"{opts.URL} answers")
        lacks = "has not the scope push" if error.status == 403 else "is not known to the server"
        yield Line("API key", f"refused: it {lacks}", False)
    except PublishError as error:
        yield Line("server", f"{opts.URL}: {error}", False)
        yield Line("API key", "unknown, because the server did not answer", None)
    else:
        yield Line("server", f"{opts.URL} answers")
        yield Line("API key", "accepted")
    finally:
        publisher.close()


def _check_token(opts: Options) -> Line:
    """Open a session with a token of our own: no other request of the server verifies tokens."""
    if not opts.TOKEN_SECRET:
        return Line("token secret", "not set: {% imgo %} does not work", None)
    try:
        code, reason = asyncio.run(_session_ends_with(opts))
    except asyncio.TimeoutError:
        return Line("token secret", f"unknown: {opts.socket_url} does not answer", False)
    if code == 0:
        return Line("token secret", f"accepted by {opts.socket_url}")
    if code == UNAUTHORIZED:
        text = (
            "refused: it is not the server's JWT_SECRET, or issuer, audience or clock differ, "
            "or the server's AUTHENTICATE_URL is set and refuses these tokens"
        )
        return Line("token secret", text, False)
    return Line("token secret", f"unknown: {opts.socket_url} closed with {code} {reason}", False)


async def _session_ends_with(opts: Options) -> tuple[int, str]:
    """Return the close code and the reason of a session, code 0 if it opens.

    Raises asyncio.TimeoutError.
    """
    ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def end(code: int, reason: str = "") -> None:
        if not ended.done():
            ended.set_result((code, reason))

    def closed(ending: Ending) -> None:
        end(ending.code, ending.reason)

    token = sign(PROBE_KEY, [], PROBE_TTL)
    client = Client(opts.socket_url, token, timeout=opts.HTTP_TIMEOUT, ack=False)
    client.on("open", lambda _: end(0)).on("close", closed).on("error", lambda _: None)
    async with client:
        return await asyncio.wait_for(ended, 2 * opts.HTTP_TIMEOUT)


def _check_outbox(alias: str, max_age: float) -> Iterator[Line]:
    try:
        if _lacks_migrations(alias):
            text = f"its tables are missing or old: run manage.py migrate --database={alias}"
            yield Line(f"outbox ({alias})", text, False)
        else:
            yield from _describe_outbox(alias, max_age)
    except DatabaseError as error:
        yield Line(f"outbox ({alias})", f"cannot be read: {error}", False)


def _lacks_migrations(alias: str) -> bool:
    executor = MigrationExecutor(connections[alias])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes(Outbox._meta.app_label)))


def _describe_outbox(alias: str, max_age: float) -> Iterator[Line]:
    rows = Outbox.objects.using(alias)
    waiting = rows.waiting()
    oldest = waiting.order_by("sequence").first()
    if oldest is None:
        yield Line(f"outbox ({alias})", "empty")
    else:
        age = (timezone.now() - oldest.created_at).total_seconds()
        error = f"; last error: {oldest.error}" if oldest.error else ""
        text = f"{waiting.count()} waiting, the oldest since {age:.0f} s{error}"
        yield Line(f"outbox ({alias})", text, age <= max_age)
    parked = rows.parked().count()
    text = f"{parked}: see the admin" if parked else "none"
    yield Line(f"parked ({alias})", text, parked == 0)
