"""Requests to the API other than pushes, and their retries. Without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from imgo_client.errors import BadAnswer, Unreachable, api_error
from imgo_client.exchange import (
    AGAIN,
    Answer,
    Attempts,
    Retry,
    Send,
    Steps,
    Wait,
    describe,
    problem_of,
    retry_after,
)
from imgo_client.frames import parse_json, to_json

GOOD = frozenset({200, 201, 202, 204})  # statuses of success; 204 has no content
LIMIT = 100  # rows of a page


@dataclass(frozen=True)
class Request:
    """One request. Sending it twice has the same effect as sending it once."""

    method: str
    path: str
    query: Mapping[str, Any] | None = None
    body: Any = None  # any JSON value; None: no content

    def as_send(self) -> Send:
        """Return the request in the form that the driver sends."""
        query = f"?{urlencode(self.query)}" if self.query else ""
        content = b"" if self.body is None else to_json(self.body).encode()
        return Send(f"/api/v1/{self.path}{query}", "application/json", content, self.method)


def call(request: Request, retry: Retry) -> Steps[Any]:
    """Send a request, retry it while that may help, and return the answer's JSON value.

    Returns None for an answer without content. Raises `ApiError`, `Unreachable`, `BadAnswer`.
    """
    attempts = Attempts(retry)
    while True:
        outcome = yield request.as_send()
        after = 0.0
        if isinstance(outcome, Answer):
            if outcome.status in GOOD:
                return _value_of(outcome)
            error: Exception = api_error(problem_of(outcome))
            after = retry_after(outcome.headers.get("retry-after", ""))
            if outcome.status not in AGAIN:
                raise error
        else:
            error = Unreachable(f"no answer: {describe(outcome)}")
        seconds = attempts.next_pause(after)
        if seconds is None:
            raise error
        yield Wait(seconds)


def _value_of(answer: Answer) -> Any:
    if answer.status == 204:
        return None
    try:
        return parse_json(answer.content)
    except ValueError:
        raise BadAnswer(f"the answer ({answer.status}) is not the API's") from None


def check_empty(value: Any) -> None:
    """Check the answer to an empty list of pushes.

    Raises `BadAnswer`, such as for another service.
    """
    if value != []:
        raise BadAnswer("the answer to an empty list of pushes is not the API's")


def part(name: str) -> str:
    """Return a key or room as a part of a path. Raises ValueError if it is empty."""
    if not name:
        raise ValueError("the name of a key or room is empty")
    # HTTP clients and proxies resolve the parts "." and ".." of a path.
    return "".join("%2E" if sign == "." else quote(sign, safe="") for sign in name)


def page(limit: int, offset: int) -> dict[str, Any]:
    """Return the query of a page."""
    return {"limit": limit, "offset": offset}


def members_of(room: str, limit: int, offset: int) -> Request:
    """Return the request for the sessions in a room."""
    query = page(limit, offset)
    if room.endswith(("/position", "/messages")):  # paths of the API's own end so
        return Request("GET", "rooms", {"room": room, **query})
    return Request("GET", f"rooms/{part(room)}", query)


def messages_of(
    room: str, since: int | None, before: int | None, limit: int, order: str
) -> Request:
    """Return the request for kept messages of a room."""
    query = {"since": since, "before": before, "limit": limit, "order": order or None}
    parameters = {name: value for name, value in query.items() if value is not None}
    return Request("GET", f"rooms/{part(room)}/messages", parameters)


def push_of(push_id: int | str, limit: int, offset: int) -> Request:
    """Return the request for the record of a push."""
    return Request("GET", f"pushes/{int(push_id)}", page(limit, offset))


def tokens_of(key: str, limit: int, offset: int) -> Request:
    """Return the request for the tokens, or for the token of one key."""
    return Request("GET", "tokens", page(limit, offset) | ({"key": key} if key else {}))


def devices_of(key: str, limit: int, offset: int) -> Request:
    """Ask for the devices of a key."""
    return Request("GET", f"keys/{part(key)}/devices", page(limit, offset))


def new_device(
    key: str, provider: str, subscription: Mapping[str, Any] | None, token: str | None, name: str
) -> Request:
    """Register a device of a key. Sent twice, it is the same device."""
    body: dict[str, Any] = {"provider": provider, "name": name}
    body |= {} if subscription is None else {"subscription": dict(subscription)}
    body |= {} if token is None else {"token": token}
    return Request("POST", f"keys/{part(key)}/devices", body=body)


def fewer_devices(key: str, device: int | str | None) -> Request:
    """Delete a device of a key, or all of them."""
    query = None if device is None else {"device": int(device)}
    return Request("DELETE", f"keys/{part(key)}/devices", query)


def new_token(  # noqa: PLR0917 - as in the call
    key: str,
    token: str,
    expires_in: int | None,
    rooms: Sequence[str] | None,
    join: Sequence[str] | None,
    info: Mapping[str, Any] | None,
) -> Request:
    """Return the request for a new token. If it is sent twice, only the second token is valid."""
    body: dict[str, Any] = {"key": key, "token": token, "expires_in": expires_in}
    for name, names in (("rooms", rooms), ("join", join)):
        if isinstance(names, str):
            raise TypeError(f"{name} is a list of strings")
        # Without the member, a server that does not know it yet answers as before.
        body |= {} if names is None else {name: list(names)}
    body |= {} if info is None else {"info": dict(info)}
    return Request("POST", "tokens", body=body)
