"""Responses of the user's backend, without the library that reads them.

That library is aiohttp. Importing it takes a tenth of a second and megabytes of memory, so
`client_class` imports it: a process that calls no backend does without.
"""

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from push.hooks.http import HttpClient

ANSWER_MAX = 65_536  # bytes that are read of an answer's body
LOCATION_MAX = 200  # characters of a redirect in the log
REASON_MAX = 300  # characters of an error in the log


def client_class() -> "type[HttpClient]":
    """Return `HttpClient`. The first call imports it, so make it before anybody waits."""
    from push.hooks.http import HttpClient

    return HttpClient


class NoResponse(Exception):
    """A request was not answered. `reason`: why, one line for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Response(NamedTuple):
    """A response. `body`: of a longer one, more than `ANSWER_MAX` bytes, but not all.

    `location`: where a redirect leads, else "".
    `coding`: the body's content coding, "" for none.
    """

    status: int
    body: bytes
    location: str = ""
    coding: str = ""

    @property
    def status_text(self) -> str:
        """Return the status as a reason why the response is of no use."""
        text = f"it answered with status {self.status}"
        if said := self.said:
            text += f": {said}"
        if self.location:
            text += f", a redirect to {self.location[:LOCATION_MAX]!r}, which is not followed"
        return text

    @property
    def problem(self) -> dict[str, Any]:
        """Return the JSON object in the body of a refusal, {} if there is none."""
        if self.status < 400 or len(self.body) > ANSWER_MAX:
            return {}
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def said(self) -> str:
        """Return the text of a refusal: a member such as `error` of its JSON object, or ""."""
        members = (self.problem.get(name) for name in ("error", "detail", "message"))
        text = next((member for member in members if isinstance(member, str)), "")
        return one_line(text)


def one_line(text: object) -> str:
    """Return a text on one line that is not too long."""
    return " ".join(str(text).split())[:REASON_MAX]
