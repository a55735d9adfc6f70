"""System checks of the app's options and URLs, without a request to the server.

`manage.py imgo_status` checks the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string

from imgo_client.django.conf import (
    NAME,
    PATHS,
    TIMEOUTS_PER_LEASE,
    Options,
    options,
    problems,
    title_of,
)
from imgo_client.django.pushing import outbox_databases

LOCAL = ("localhost", "127.0.0.1", "::1")

AppConfigs = Sequence[AppConfig] | None


def check_options(app_configs: AppConfigs = None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Check the dictionary `IMGO_CLIENT`."""
    messages = list(problems(getattr(settings, NAME, {})))
    if messages:
        return [_error(f"{title_of(name)} {text}", "E001") for name, text in messages]
    return [*_check_values(options()), *_check_paths(options()), *_check_http(options())]


def _check_values(opts: Options) -> Iterator[CheckMessage]:
    for name in ("URL", "API_KEY"):
        if not getattr(opts, name):
            hint = {
                "URL": "Name the server, such as https://push.example.org.",
                "API_KEY": "On the server, `manage.py apikey NAME --scope push` makes one.",
            }[name]
            yield _error(f"{NAME}[{name!r}] is missing.", "E002", hint)
    if opts.LEASE <= TIMEOUTS_PER_LEASE * opts.HTTP_TIMEOUT:
        least = TIMEOUTS_PER_LEASE * opts.HTTP_TIMEOUT
        yield _error(
            f"{NAME}['LEASE'] is {opts.LEASE:g} s: a lane could pass to another relay during "
            "a request.",
            "E003",
            f"Set it above {least:g}, which is {TIMEOUTS_PER_LEASE} times HTTP_TIMEOUT.",
        )
    parts = urlsplit(opts.URL)
    if parts.scheme == "http" and parts.hostname not in LOCAL and not settings.DEBUG:
        yield Warning(
            f"{NAME}['URL'] begins with http://: the API key and the messages are sent in clear.",
            hint="Use https://, or silence imgo_client.W001 if the network is private.",
            id="imgo_client.W001",
        )


def _check_paths(opts: Options) -> Iterator[CheckMessage]:
    for name in PATHS:
        path = getattr(opts, name)
        if not path:
            continue
        try:
            is_callable = callable(import_string(path))
        except ImportError as error:
            yield _error(f"{NAME}[{name!r}] cannot be imported: {error}", "E004")
        else:
            if not is_callable:
                yield _error(f"{NAME}[{name!r}] is not a function: {path}.", "E004")


def _check_http(opts: Options) -> Iterator[CheckMessage]:
    """Make what the relay will make: only httpx knows its arguments."""
    from imgo_client.django.relay import make_publisher

    if not (opts.HTTP and opts.URL and opts.API_KEY):
        return
    try:
        make_publisher(opts).close()
    except ImproperlyConfigured as error:
        hint = "Base URL, headers and timeout are the app's own."
        text = f"{NAME}['HTTP'] cannot be used by httpx.Client: {error.__cause__}"
        yield _error(text, "E007", hint)


def check_databases(app_configs: AppConfigs = None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Check that the databases of the outbox exist and that the router gives them its tables."""
    from imgo_client.django.models import Outbox

    try:
        aliases = outbox_databases()
    except ImproperlyConfigured:
        return []  # reported by check_options
    messages: list[CheckMessage] = []
    for alias in aliases:
        if alias not in connections:
            messages.append(
                _error(f"{NAME}['DATABASES'] names {alias!r}, which is not in DATABASES.", "E005")
            )
        elif not router.allow_migrate_model(alias, Outbox):
            messages.append(
                _error(
                    f"The database {alias!r} gets no table for the outbox: a database router "
                    "forbids it.",
                    "E006",
                    "Let allow_migrate() return True or None for the app imgo_client, or name "
                    f"other databases in {NAME}['DATABASES'].",
                )
            )
    return messages


def check_urls(app_configs: AppConfigs = None, **_: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Check that the app's views have addresses if the options need them."""
    try:
        opts = options()
    except ImproperlyConfigured:
        return []  # reported by check_options
    needed = ("TOKEN_SECRET", "WEBHOOK_SECRETS", "AUTHENTICATE", "AUTHORIZE", "RECEIVE")
    names = [name for name in needed if getattr(opts, name)]
    if not names or not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        reverse("imgo_client:token")
    except NoReverseMatch:
        text = f"The URLs of imgo_client.django are missing, and {NAME} sets {', '.join(names)}."
        hint = 'Add path("imgo/", include("imgo_client.django.urls")) to the URLconf.'
        return [Warning(text, hint=hint, id="imgo_client.W002")]
    return []


def _error(text: str, number: str, hint: str | None = None) -> CheckMessage:
    return Error(text, hint=hint, id=f"imgo_client.{number}")
