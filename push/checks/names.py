"""Names and values: settings that there are not, wrong types, callables that are not there."""

import difflib
import os
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from imgo_site.addresses import in_networks
from imgo_site.conf import conf, known_names, load

CALLABLES = ("AUTHENTICATOR", "ROOM_AUTHORIZER", "RECEIVER", "SESSION_KEY")
NETWORKS = ("LEGACY_TRUSTED_NETWORKS", "TRUSTED_PROXIES")


@register
def check_names(**_: Any) -> list[CheckMessage]:
    """E001: unknown settings; W001: environment variables that name none."""
    known = known_names()
    messages: list[CheckMessage] = [
        Error(f"IMGO[{name!r}] is not a setting.", hint=_hint(name, known), id="imgo.E001")
        for name in getattr(settings, "IMGO", {})
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
        hint = "The README lists the settings with their defaults."
        return [Error(str(error), hint=hint, id="imgo.E002")]
    messages: list[CheckMessage] = []
    for name in CALLABLES:
        try:
            import_string(getattr(conf, name))
        except ImportError as error:
            hint = "Say module.function, of a module that this process can import."
            messages.append(Error(f"IMGO setting {name}: {error}", hint=hint, id="imgo.E003"))
    if conf.SESSION_CAP_POLICY not in {"refuse", "close_oldest"}:
        hint = "Say 'refuse' or 'close_oldest'."
        messages.append(Error("SESSION_CAP_POLICY is unknown.", hint=hint, id="imgo.E004"))
    if conf.DEMO not in {"auto", "on", "off"}:
        messages.append(Error("DEMO is unknown.", hint="Say auto, on or off.", id="imgo.E004"))
    for name in NETWORKS:
        try:
            in_networks("127.0.0.1", getattr(conf, name))
        except ValueError as error:
            hint = "Say networks such as 10.1.0.0/16 or fd00::/8, separated by commas."
            messages.append(Error(f"{name}: {error}", hint=hint, id="imgo.E005"))
    return messages
