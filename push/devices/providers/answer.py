"""Answer of a provider's server."""

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

BODY_MAX = 16_384  # bytes that are read of an answer


class Broken(Exception):
    """The connection, or the request on it, has ended before the answer."""


class NotProcessed(Broken):
    """The server has not processed the request: another connection must take it."""


class Answer(NamedTuple):
    """An answer. `headers`: with names in lower case. `body`: its first `BODY_MAX` bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retry_after(self) -> float:
        """Return the seconds of Retry-After, which is a number or a date; 0 without one."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text)
        until = _time_of(text)
        if until is None:
            return 0.0
        # By the provider's clock, if the answer has it: ours may be wrong.
        now = _time_of(self.headers.get("date", ""))
        return max(0.0, until - (time.time() if now is None else now))

    @property
    def json(self) -> dict[str, Any]:
        """Return the JSON object of the body, {} if it has none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def _time_of(text: str) -> float | None:
    """Return the date of a header as a Unix time, None if it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
