"""Checks of subscriber keys, room names and numbers from clients and callers."""

import re
from collections.abc import Iterable

from imgo_site.errors import BadRequest

NAME_MAX = 255  # characters of a key or room: fits an indexed column
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
REQUEST_LINE_MAX = 65_536  # bytes of a request's first line: a thousand keys in a query
DASHBOARD_ROOM = "imgo.dashboard"  # updates for the dashboard's own sessions; callers cannot push

# Control characters and lone surrogates. Postgres can store neither NUL nor lone surrogates.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def has_control_characters(text: str) -> bool:
    """Return whether the text has control characters or lone surrogates."""
    return _FORBIDDEN.search(text) is not None


def printable(text: str) -> str:
    """Return a client's text for a row, a log line or JSON, with "?" for unprintable characters.

    A text without control characters or lone surrogates is unchanged.
    """
    if has_control_characters(text):
        text = "".join(char if char.isprintable() else "?" for char in text)
    return text


def matches_pattern(pattern: str, name: str) -> bool:
    """Return whether `name` matches `pattern`, in which each `*` stands for any text.

    Each part between two stars is searched once, after the previous part. So there is no
    backtracking, and the time grows only with the length of the name.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return name == pattern
    last = parts.pop()
    start, end = len(first), len(name) - len(last)
    if start > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in parts:
        position = name.find(part, start, end)
        if position < 0:
            return False
        start = position + len(part)
    return True


def hiding_pattern(earlier: Iterable[str], pattern: str) -> str | None:
    """Return the first of the earlier patterns that matches all names of `pattern`; else None."""
    return next((before for before in earlier if matches_pattern(before, pattern)), None)


def check_name(value: object, what: str) -> str:
    """Return `value` if it is a valid name, else raise `BadRequest`.

    `what`: the kind of name for the error, such as "key" or "room".
    """
    if not isinstance(value, str) or not value:
        raise BadRequest(f"A {what} must be a non-empty string.")
    if len(value) > NAME_MAX:
        raise BadRequest(f"A {what} has at most {NAME_MAX} characters.")
    if has_control_characters(value):
        raise BadRequest(f"A {what} must not contain control characters.")
    return value


def check_number(value: object, what: str, *, lowest: int, highest: int) -> int:
    """Return `value` as an int if it is one within the limits, else raise `BadRequest`.

    A decimal text is accepted, and so is 5.0: the API's parameters are of JSON Schema's type
    `integer`, which includes it.

    `what`: the start of the error, such as "The cursor".
    """
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}(\.0+)?", value):
        value = int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise BadRequest(f"{what} must be a whole number from {lowest} to {highest}.")
    return value
