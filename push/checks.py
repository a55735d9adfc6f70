"""System checks of imgo's settings, each with an id and a hint."""

import difflib
import os
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from accounts.authentication import in_networks
from imgo_site.conf import conf, known_names, load

SECRET_MIN = 32  # bytes of an HS256 secret (RFC 7518, section 3.2)
CALLABLES = ("AUTHENTICATOR", "ROOM_AUTHORIZER", "RECEIVER", "SESSION_KEY")


@register
def check_names(**_: Any) -> list[CheckMessage]:
    """E001: unknown settings; W001: environment variables that name none."""
    known = known_names()
    messages: list[CheckMessage] = [
        Error(f"IMGO[{name!r}] is not a setting.", hint=_hint(name, known), id="imgo.E001")
        for name in settings.IMGO
        if name not in known
    ]
    for variable in os.environ:
        name = variable.removeprefix("IMGO_")
        if name != variable and name not in known:
            # Only a warning: Kubernetes sets variables like IMGO_SERVICE_HOST by itself.
            messages.append(
                checks.Warning(
                    f"{variable} is not a setting.", hint=_hint(name, known), id="imgo.W001"
                )
            )
    return messages


def _hint(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else "The README lists the settings."


@register
def check_values(**_: Any) -> list[CheckMessage]:
    """E002: a value of the wrong type; E003-E005: values that make no sense."""
    try:
        load()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="imgo.E002")]
    messages: list[CheckMessage] = []
    for name in CALLABLES:
        try:
            import_string(getattr(conf, name))
        except ImportError as error:
            messages.append(Error(f"IMGO setting {name}: {error}", id="imgo.E003"))
    if conf.SESSION_CAP_POLICY not in {"refuse", "close_oldest"}:
        hint = "Say 'refuse' or 'close_oldest'."
        messages.append(Error("SESSION_CAP_POLICY is unknown.", hint=hint, id="imgo.E004"))
    if conf.DEMO not in {"auto", "on", "off"}:
        messages.append(Error("DEMO is unknown.", hint="Say auto, on or off.", id="imgo.E004"))
    try:
        in_networks("127.0.0.1", conf.LEGACY_TRUSTED_NETWORKS)
    except ValueError as error:
        messages.append(Error(f"LEGACY_TRUSTED_NETWORKS: {error}", id="imgo.E005"))
    return messages


@register
def check_security(**_: Any) -> list[CheckMessage]:
    """W002-W003: doors that stand open, and weak secrets."""
    messages: list[CheckMessage] = []
    try:
        load()
    except ImproperlyConfigured:
        return messages  # E002 tells
    if conf.LEGACY_TRUSTED_NETWORKS:
        networks = ", ".join(conf.LEGACY_TRUSTED_NETWORKS)
        messages.append(
            checks.Warning(
                f"Anyone in {networks} can push without an API key on imgo's paths.",
                hint="Give the old tools an API key (?apikey=...) and empty "
                "LEGACY_TRUSTED_NETWORKS.",
                id="imgo.W002",
            )
        )
    if conf.JWT_SECRET and len(conf.JWT_SECRET.encode()) < SECRET_MIN:
        messages.append(
            checks.Warning(
                f"JWT_SECRET is shorter than {SECRET_MIN} bytes.",
                hint="Make one: python -c 'import secrets; print(secrets.token_urlsafe(48))'",
                id="imgo.W003",
            )
        )
    return messages
