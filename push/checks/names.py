"""Checks of names and values: unknown settings, wrong types, callables that cannot be imported."""

import difflib
import inspect
import os
from collections.abc import Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from imgo_site.addresses import in_networks
from imgo_site.conf import conf, given, known_names, load
from imgo_site.names import NAME_MAX, has_control_characters
from imgo_site.setting_values import shown

CALLABLES = ("AUTHENTICATOR", "ROOM_AUTHORIZER", "RECEIVER", "SESSION_KEY")
NODE_NAME_MAX = NAME_MAX - len("#999")  # `--processes` numbers its nodes
NETWORKS = ("LEGACY_TRUSTED_NETWORKS", "TRUSTED_PROXIES")


@register
def check_names(**_: Any) -> list[CheckMessage]:
    """E001: a key of IMGO that is not a setting; W001: a variable IMGO_* that is not a setting."""
    settings = known_names()
    try:
        names = list(given())
    except ImproperlyConfigured:
        names = []  # E002 reports it
    messages: list[CheckMessage] = [
        Error(f"IMGO[{shown(name)}] is not a setting.", hint=_hint(name, settings), id="imgo.E001")
        for name in names
        if name not in settings
    ]
    for variable in os.environ:
        name = variable.removeprefix("IMGO_")
        if name != variable and name not in settings:
            # Only a warning, because Kubernetes sets variables such as IMGO_SERVICE_HOST itself.
            messages.append(
                checks.Warning(
                    f"{shown(variable)[1:-1]} is not a setting.",
                    hint=_hint(name, settings),
                    id="imgo.W001",
                )
            )
    return messages


def _hint(name: object, settings: set[str]) -> str:
    close = difflib.get_close_matches(str(name), settings, n=1)
    return f"Did you mean {close[0]}?" if close else "docs/reference/settings.md lists them."


@register
def check_values(**_: Any) -> list[CheckMessage]:
    """E002: a value of the wrong type; E003: a hook that cannot be imported or called.

    E004: a text that is not one of the choices, is missing, or is not a valid name; E005: a
    network that is not valid.
    """
    try:
        load()
    except ImproperlyConfigured as error:
        hint = "docs/reference/settings.md lists the settings with their defaults."
        return [Error(str(error), hint=hint, id="imgo.E002")]
    messages: list[CheckMessage] = [*_check_callables(), *_check_texts()]
    for name in NETWORKS:
        try:
            in_networks("127.0.0.1", getattr(conf, name))
        except ValueError as error:
            hint = "Use networks such as 10.1.0.0/16 or fd00::/8, separated by commas."
            messages.append(Error(f"{name}: {error}", hint=hint, id="imgo.E005"))
    return messages


def _check_callables() -> Iterator[CheckMessage]:
    """E003: a hook that cannot be imported or called."""
    for name in CALLABLES:
        path = getattr(conf, name)
        try:
            hook = import_string(path)
        except ImportError as error:
            problem = str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - its module may raise anything
            problem = f"{path!r} cannot be imported: {type(error).__name__}: {error}"
        else:
            problem = _unusable(name, hook)
            if not problem:
                continue
            problem = f"{path} {problem}"
        hint = "Use module.function, of a module that this process can import."
        yield Error(f"IMGO setting {name}: {problem}", hint=hint, id="imgo.E003")


def _unusable(name: str, hook: Any) -> str:
    """Return why a hook cannot be used, "" if it can. All but `SESSION_KEY` are awaited."""
    if not callable(hook):
        return f"is {type(hook).__name__!r}, which cannot be called"
    # A decorated function may return something that can be awaited.
    is_plain = inspect.isroutine(hook) and getattr(hook, "__wrapped__", None) is None
    if name != "SESSION_KEY" and is_plain and not iscoroutinefunction(hook):
        return "is a plain function: it is awaited, so begin it with 'async def'"
    if (may_publish := getattr(hook, "may_publish", None)) is not None and (
        why := _unusable("may_publish", may_publish)
    ):
        return f"has may_publish, which {why}"
    return ""


def _check_texts() -> Iterator[CheckMessage]:
    """E004: a text that is not one of the choices, is missing, or is not a valid name."""
    if conf.SESSION_CAP_POLICY not in {"refuse", "close_oldest"}:
        hint = "Use 'refuse' or 'close_oldest'."
        yield Error("SESSION_CAP_POLICY is unknown.", hint=hint, id="imgo.E004")
    if conf.DEMO not in {"auto", "on", "off"}:
        yield Error("DEMO is unknown.", hint="Use auto, on or off.", id="imgo.E004")
    if not conf.JWT_KEY_CLAIM:
        hint = "Name the claim that holds the subscriber key; the default is sub."
        yield Error("JWT_KEY_CLAIM is empty: no JWT has a key.", hint=hint, id="imgo.E004")
    if len(conf.NODE_NAME) > NODE_NAME_MAX or has_control_characters(conf.NODE_NAME):
        hint = f"Use at most {NODE_NAME_MAX} characters, and no control characters."
        yield Error("NODE_NAME is not a valid name.", hint=hint, id="imgo.E004")
