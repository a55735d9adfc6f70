"""What a subscriber key, a room name and a number from outside may look like."""

import re

from imgo_site.errors import BadRequest

NAME_MAX = 255  # characters of a key or room: fits an indexed column
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
REQUEST_LINE_MAX = 65_536  # bytes of a request's first line: a thousand keys in a query
DASHBOARD_ROOM = "imgo.dashboard"  # snapshots for the dashboard's own sessions; nobody pushes to it

# Control characters and lone surrogates: Postgres stores neither NUL nor half a character.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def has_control_characters(text: str) -> bool:
    """Whether characters are in it that no name may have."""
    return _FORBIDDEN.search(text) is not None


def printable(text: str) -> str:
    """Return text of a client as a row, a log line or JSON may have it: "?" for what cannot be."""
    if has_control_characters(text):
        text = "".join(one if one.isprintable() else "?" for one in text)
    return text


def matches_pattern(pattern: str, name: str) -> bool:
    """Return whether `name` matches `pattern`, in which each `*` stands for any text.

    Each part between two stars is searched once, behind the part before it, so the time grows
    with the length of the name and not with the number of ways to share it out.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return name == pattern
    last = parts.pop()
    start, end = len(first), len(name) - len(last)
    if start > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in parts:
        found = name.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


def check_name(value: object, what: str) -> str:
    """`value` if it may be a `what` ("key", "room"); raises `BadRequest`."""
    if not isinstance(value, str) or not value:
        raise BadRequest(f"A {what} must be a non-empty string.")
    if len(value) > NAME_MAX:
        raise BadRequest(f"A {what} has at most {NAME_MAX} characters.")
    if has_control_characters(value):
        raise BadRequest(f"A {what} must not contain control characters.")
    return value


def check_number(value: object, what: str, *, lowest: int, highest: int) -> int:
    """`value`, an int or its decimal text, if it is within the limits; raises `BadRequest`.

    5.0 is a whole number too, as JSON Schema has it, whose `integer` our API's parameters are.
    """
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}(\.0+)?", value):
        value = int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise BadRequest(f"{what} must be a whole number from {lowest} to {highest}.")
    return value
