"""Options of the app: the dictionary `IMGO_CLIENT` of the project's settings.

`Options` lists all of them with their defaults. They are read at their first use, and again after
`override_settings`.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

NAME = "IMGO_CLIENT"
SECRET_MIN = 32  # bytes of an HS256 secret: RFC 7518, section 3.2
BATCH_MAX = 500  # pushes of one request; SQLite allows 999 values in a statement
TIMEOUTS_PER_LEASE = 4  # a publisher gives an answer up after three, and waits one for each part
WEBHOOK_PREFIX = "whsec_"  # of secrets, by the Standard Webhooks specification


def _option(default: Any, doc: str) -> Any:
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Options:
    """Options with their defaults. Times are in seconds."""

    URL: str = _option("", "The server's address, such as https://push.example.org. Required.")
    API_KEY: str = _option("", "An API key with the scope `push`. Required.")
    HTTP: Mapping[str, Any] = _option({}, "Arguments for httpx.Client, such as `verify`, `proxy`.")
    HTTP_TIMEOUT: float = _option(10.0, "Limit of each step of a request to the server.")

    TOKEN_SECRET: str = _option("", "The server's JWT_SECRET. Empty: {% imgo %} does not work.")
    TOKEN_TTL: int = _option(300, "Lifetime of a token; then the page's client gets another.")
    TOKEN_ISSUER: str = _option("", "`iss` of tokens: the server's JWT_ISSUER.")
    TOKEN_AUDIENCE: str = _option("", "`aud` of tokens: the server's JWT_AUDIENCE.")
    TOKEN_KEY: str = _option(
        "imgo_client.django.tokens.user_key", "Function of a user that returns the user's key."
    )
    TOKEN_ROOMS: str = _option(
        "", "Function of a user that returns rooms or `*` patterns. Empty: ROOMS_OPEN decides."
    )
    TOKEN_INFO: str = _option(
        "", "Function of a user that returns what others see of the user in rooms with presence."
    )
    SOCKET_URL: str = _option("", "Where browsers connect. Empty: `/sub` below URL.")
    SCRIPT_URL: str = _option("", "Address of imgo.js. Empty: the server's own, below URL.")

    WEBHOOK_SECRETS: tuple[str, ...] = _option((), "`whsec_` secrets; two during a rotation.")
    WEBHOOK_AGE: int = _option(300, "Refuse webhooks and hooks whose timestamp differs by more.")
    WEBHOOK_KEEP: int = _option(172_800, "How long ids of webhooks are kept to ignore repetitions.")
    AUTHENTICATE: str = _option("", "Function that answers the hook `authenticate`.")
    AUTHORIZE: str = _option("", "Function that answers the hook `authorize`.")
    RECEIVE: str = _option("", "Function that answers the hook `receive`.")

    DATABASES: tuple[str, ...] = _option((), "Databases with an outbox. Empty: the router's.")
    RELAY: str = _option("thread", "What a commit wakes: `thread`, `celery`, or `none`.")
    RELAY_IN_TESTS: bool = _option(False, "Wake it also while Django's test environment is set up.")
    BATCH: int = _option(200, "Pushes of one request.")
    LEASE: float = _option(60.0, "How long a lane stays with a relay that has ended abruptly.")
    BACKOFF: tuple[float, float] = _option((0.5, 60.0), "Shortest and longest pause of a lane.")
    POLL: float = _option(1.0, "How often `imgo_relay` queries an empty outbox.")
    IDLE_POLL: float = _option(60.0, "How often the relay's thread queries an empty outbox.")
    EXIT_WAIT: float = _option(5.0, "How long the end of a process waits for its relay.")
    PARKED_KEEP: int = _option(604_800, "How long parked pushes are kept. 0: for ever.")

    @property
    def socket_url(self) -> str:
        """Return the URL for WebSocket clients."""
        return self.SOCKET_URL or f"{self.URL.rstrip('/').replace('http', 'ws', 1)}/sub"

    @property
    def script_url(self) -> str:
        """Return the URL of imgo.js."""
        return self.SCRIPT_URL or f"{self.URL.rstrip('/')}/static/push/imgo.js"


NAMES = tuple(option.name for option in fields(Options))
# Dotted paths.
PATHS = ("TOKEN_KEY", "TOKEN_ROOMS", "TOKEN_INFO", "AUTHENTICATE", "AUTHORIZE", "RECEIVE")
_RELAYS = ("thread", "celery", "none")
_LISTS = ("WEBHOOK_SECRETS", "DATABASES")


@functools.lru_cache(maxsize=1)
def options() -> Options:
    """Return the options. Raises ImproperlyConfigured if one is unknown or malformed."""
    values = getattr(settings, NAME, {})
    for name, text in problems(values):
        raise ImproperlyConfigured(f"{title_of(name)} {text}")
    lists = {name: tuple(values[name]) for name in (*_LISTS, "BACKOFF") if name in values}
    return Options(**{**values, **lists})


def _reset(setting: str, **_: object) -> None:
    if setting == NAME:
        options.cache_clear()


setting_changed.connect(_reset, dispatch_uid="imgo_client.conf")


def title_of(name: str) -> str:
    """Return how messages name an option; "": the whole dictionary."""
    return f"{NAME}[{name!r}]" if name else NAME


def problems(values: Any) -> Iterator[tuple[str, str]]:
    """Yield (option, what is wrong with it) for each unknown or malformed option."""
    if not isinstance(values, Mapping):
        yield "", f"must be a dictionary, not {type(values).__name__}."
        return
    for name, value in values.items():
        if name not in NAMES:
            yield str(name), f"is unknown. Options are {', '.join(NAMES)}."
        elif text := _problem_of(name, value):
            yield name, text


def _problem_of(name: str, value: Any) -> str:
    """Return what is wrong with an option's value, "" if nothing is."""
    default = getattr(Options, name, None)
    if name == "HTTP":
        return "" if isinstance(value, Mapping) else "must be a dictionary."
    if name == "BACKOFF":
        return _problem_of_backoff(value)
    if name in _LISTS:
        return _problem_of_list(name, value)
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"must be True or False, not {value!r}."
    if isinstance(default, str):
        return _problem_of_text(name, value)
    return _problem_of_number(name, value, default)


def _problem_of_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return f"must be a string, not {type(value).__name__}."
    if name == "RELAY" and value not in _RELAYS:
        return f"must be one of {', '.join(_RELAYS)}, not {value!r}."
    if name == "TOKEN_SECRET" and value and len(value.encode()) < SECRET_MIN:
        return f"is too short: an HS256 secret has at least {SECRET_MIN} bytes."
    if name == "API_KEY" and not _is_header_text(value):
        return "has a space, a line end, or another character that no API key has."  # not the value
    if name == "TOKEN_KEY" and not value:
        return "must name a function. Leave it out for the primary key."
    return _problem_of_url(name, value) if value else ""


def _is_header_text(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _problem_of_url(name: str, value: str) -> str:
    schemes = {"URL": ("http", "https"), "SOCKET_URL": ("ws", "wss")}.get(name)
    if schemes and not _is_address(value, schemes):
        return f"must begin with {' or '.join(schemes)}:// and name a host, not {value!r}."
    return ""


def _is_address(url: str, schemes: Sequence[str]) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is no port
    except ValueError:
        return False
    is_plain = not (parts.query or parts.username)
    return parts.scheme in schemes and bool(parts.hostname) and is_plain


def _problem_of_number(name: str, value: Any, default: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or (isinstance(default, int) and not isinstance(value, int)):
        return f"must be a number, not {value!r}."
    lowest = 0 if name in ("PARKED_KEEP", "EXIT_WAIT") else 1 if isinstance(default, int) else 0.01
    if not lowest <= value < float("inf"):
        return f"must be at least {lowest}, not {value!r}."
    if name == "BATCH" and value > BATCH_MAX:
        return f"must be at most {BATCH_MAX}, not {value!r}."
    return ""


def _problem_of_backoff(value: Any) -> str:
    try:
        shortest, longest = value
        is_good = 0 < shortest <= longest < float("inf")
    except (TypeError, ValueError):
        is_good = False
    return "" if is_good else f"must be a shortest and a longest pause, not {value!r}."


def _problem_of_list(name: str, value: Any) -> str:
    is_list = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    if not is_list:
        return "must be a list of strings."
    if name == "WEBHOOK_SECRETS" and not all(map(is_webhook_secret, value)):
        return f"has a secret that is not {WEBHOOK_PREFIX!r} and base64."  # the value stays secret
    return ""


def is_webhook_secret(secret: str) -> bool:
    """Return whether this is a secret by the Standard Webhooks specification."""
    try:
        key = base64.b64decode(secret.removeprefix(WEBHOOK_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return secret.startswith(WEBHOOK_PREFIX) and bool(key)
