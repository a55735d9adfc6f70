"""Checks of a client's arguments. Error texts name the argument, what it must be and its value."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

REWIND_MAX = 100_000  # messages; the protocol's limit: the server ends a session that asks for more
SHOWN_MAX = 60  # characters of a wrong value that a text repeats


def check_list(name: str, value: object) -> None:
    """Raise TypeError unless `value` is an iterable that is not one text."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {_shown(value)}")


def check_type(name: str, value: object, kind: type, named: str) -> None:
    """Raise TypeError unless `value` is a `kind`. `named`: the kind in the error's text."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {named}, not {_shown(value)}")


def check_count(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise TypeError unless `value` is a whole number, ValueError if it is out of its range.

    `most`: None: there is no limit.
    """
    if type(value) is not int:  # not isinstance: True is an int to Python
        raise TypeError(f"{name} must be a whole number, not {_shown(value)}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {limits}, not {_shown(value)}")


def check_seconds(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a number, ValueError unless it is positive and finite."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {_shown(value)}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0 and finite, not {_shown(value)}")


def check_tls(value: object) -> None:
    """Raise TypeError unless `value` is an `ssl.SSLContext` or None."""
    if value is not None:
        check_type("tls", value, ssl.SSLContext, "an ssl.SSLContext or None")


def check_texts(**values: object) -> None:
    """Raise TypeError unless all values are strings."""
    for name, value in values.items():
        check_type(name, value, str, "a string")


def _shown(value: Any) -> str:
    """Return a wrong value for an error text: one line of a bounded length."""
    try:
        text = ascii(value)
    except ValueError:  # Python refuses to format a number of thousands of digits
        return "a number too large to be written"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
