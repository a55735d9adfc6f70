"""Conversion of settings: from texts of the environment, or from the `IMGO` dictionary."""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured

_BOOLEANS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off", ""), False
)


SHOWN_MAX = 100  # characters of a wrong value that an error message repeats

# NUL, which ends a string in C, and surrogates, which stand for bytes of the environment that are
# not UTF-8. No database, socket or file accepts them.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def shown(value: Any) -> str:
    """Return a wrong value for an error message: one printable line of a bounded length."""
    try:
        text = ascii(value)
    except ValueError:  # Python refuses to format a number of thousands of digits
        return "a number too large to be written"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def convert(name: str, value: Any, kind: type, items: type) -> Any:
    """Return the value of the setting `name` as `kind`.

    `items`: type of a list's items, `str` or `dict`. The latter, and dictionaries, may be JSON.
    Raises `ImproperlyConfigured` with the type that is required.
    """
    if items is dict:
        return _read_dictionaries(name, value)
    if kind is dict:
        return _read_dictionary(name, value)
    try:
        return _read(name, value, kind)
    except OverflowError:
        raise ImproperlyConfigured(f"IMGO setting {name} is too large a number.") from None
    except (ValueError, KeyError):
        raise ImproperlyConfigured(
            f"IMGO setting {name}={shown(value)} must be of type {kind.__name__}."
        ) from None


def _read(name: str, value: Any, kind: type) -> Any:
    """Return `value` as `kind`.

    Raises `KeyError` or `ValueError` for a value of another kind, `OverflowError` for a number
    that is too large, `ImproperlyConfigured` for a bad text.
    """
    if isinstance(value, str) and kind is not str:
        if kind is bool:
            return _BOOLEANS[value.strip().lower()]
        if kind is list:
            value = [item.strip() for item in value.split(",") if item.strip()]
        else:
            return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise ImproperlyConfigured(
                    f"IMGO setting {name} must be a list of texts; {shown(item)} is none."
                )
            _check_text(name, item)
    elif isinstance(value, str):
        _check_text(name, value)
    return value


def _read_dictionaries(name: str, value: Any) -> list[dict[str, Any]]:
    """Return a list of dictionaries, which may be given as JSON.

    Raises `ImproperlyConfigured` without the value, which may contain secrets.
    """
    entries = _read_json(name, value)
    if isinstance(entries, tuple):
        entries = list(entries)
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise ImproperlyConfigured(f"IMGO setting {name} must be a list of dictionaries.")
    return entries


def _read_dictionary(name: str, value: Any) -> Mapping[str, Any]:
    """Return a dictionary, which may be given as JSON. Raises `ImproperlyConfigured`."""
    dictionary = _read_json(name, value)
    if not isinstance(dictionary, Mapping):
        raise ImproperlyConfigured(f"IMGO setting {name} must be a dictionary.")
    return dictionary


def _read_json(name: str, value: Any) -> Any:
    """Return `value`, decoded if it is a text.

    Raises `ImproperlyConfigured` with the place of the mistake, without the value.
    """
    try:
        if not isinstance(value, str):
            return value
        return json.loads(value, object_pairs_hook=partial(_read_object, name))
    except json.JSONDecodeError as error:
        # Not `error.msg`, which may repeat a part of the value.
        raise ImproperlyConfigured(
            f"IMGO setting {name} is not JSON: the mistake is at line {error.lineno}, column "
            f"{error.colno}. Names and texts need double quotes."
        ) from None
    except (ValueError, RecursionError):
        raise ImproperlyConfigured(
            f"IMGO setting {name} cannot be read: a number in it is too long, or it is nested too "
            "deeply."
        ) from None


def _read_object(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises `ImproperlyConfigured` if it has a name twice.

    `json` would keep the last value of a name without a word.
    """
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ImproperlyConfigured(
                f"IMGO setting {name} has {shown(key)} twice in one object: leave one of them out."
            )
        members[key] = value
    return members


def _check_text(name: str, text: str) -> None:
    if _NO_TEXT.search(text):
        # The message must not contain the value, which may be a secret.
        raise ImproperlyConfigured(
            f"IMGO setting {name} has bytes that are no UTF-8, or a character that is no text."
        )
