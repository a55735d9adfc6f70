"""The questions of the hooks: who a client is, which rooms it may join, what to reply to it.

Each converts its answer, and raises `Unavailable` if there is no usable one. So a backend that
fails lets nobody in, and clients come back later.
"""

import base64
from collections.abc import Callable
from typing import Any

from accounts.auth_body import AuthBody
from accounts.identity import Facts, Identity
from accounts.models import check_join, check_rooms
from imgo_site.errors import BadRequest, Forbidden, ImgoError, NotAuthenticated, Unavailable
from imgo_site.names import check_name
from push.hooks.client import Answer, Hook, HookClient

SOURCE = "hook"  # of the identities
EXPIRES_MAX = 10 * 365 * 86_400.0  # seconds


async def authenticate(
    client: HookClient, body: AuthBody, facts: Facts, is_gone: Callable[[], bool]
) -> Identity:
    """Return the identity that the backend gives to a client.

    Raises `NotAuthenticated` for an answer of 401 or 403, `BadRequest` for an auth body with a
    mistake, and `Unavailable`.
    """
    if body.mistake:
        raise BadRequest(body.mistake)
    asked = {
        "token": body.token,
        "rooms": list(body.rooms),
        "platform": body.platform,
        "device": body.device,
        "transport": facts.transport,
        "address": facts.address,
        "scheme": facts.scheme,
        "headers": dict(facts.headers),
        **_bytes_member("auth", body.raw),
    }
    answer = await client.call(Hook.AUTHENTICATE, asked, is_gone)
    if answer.status in (401, 403):
        raise NotAuthenticated("The token is not valid or has expired.")
    try:
        return _identity(answer.body, facts)
    except BadRequest as error:
        raise _unusable(Hook.AUTHENTICATE, error.message) from None


def _identity(value: Any, facts: Facts) -> Identity:
    """Return the identity in an answer. Raises `BadRequest`."""
    if not isinstance(value, dict):
        raise BadRequest("It must be a JSON object with a 'key'.")
    key, rooms = value.get("key"), value.get("rooms")
    join, expires_in = value.get("join") or [], value.get("expires_in")
    check_name(key, "key")
    check_rooms(rooms)
    check_join(join)
    if expires_in is None:
        expires = None
    elif isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        raise BadRequest("'expires_in' must be a number of seconds, or null.")
    elif not 0 < expires_in <= EXPIRES_MAX:
        raise BadRequest(f"'expires_in' must be above 0 and at most {EXPIRES_MAX:.0f}.")
    else:
        expires = facts.clock.now() + expires_in
    allowed = None if rooms is None else tuple(rooms)
    return Identity(str(key), allowed, expires, SOURCE, join=tuple(join))


async def authorize_room(
    client: HookClient, identity: Identity, room: str, is_gone: Callable[[], bool]
) -> bool:
    """Return whether the backend lets an identity join a room. Raises `Unavailable`."""
    asked = {"key": identity.key, "room": room, "source": identity.source}
    answer = await client.call(Hook.AUTHORIZE_ROOM, asked, is_gone)
    if answer.status in (401, 403):
        return False
    allowed = answer.body.get("allowed") if isinstance(answer.body, dict) else None
    if not isinstance(allowed, bool):
        raise _unusable(Hook.AUTHORIZE_ROOM, "It must be a JSON object with 'allowed'.")
    return allowed


async def receive(client: HookClient, identity: Identity, op: int, body: Any) -> Any:
    """Return the backend's reply to an upstream message; None for an empty answer.

    Raises `Forbidden` or `BadRequest` for an answer of 4xx, and `Unavailable`.
    """
    asked: dict[str, Any] = {"key": identity.key, "op": op}
    asked |= _bytes_member("body", body) if isinstance(body, bytes) else {"body": body}
    answer = await client.call(Hook.RECEIVE, asked)
    if answer.status >= 400:
        raise _refusal(answer)
    return answer.body


def _refusal(answer: Answer) -> ImgoError:
    kind = Forbidden if answer.status in (401, 403) else BadRequest
    return kind("The message was refused.")


def _unusable(hook: Hook, problem: str) -> Unavailable:
    return Unavailable(f"The backend's answer to the hook {hook} cannot be used. {problem}")


def _bytes_member(name: str, data: bytes) -> dict[str, str]:
    """Return a member with the text of `data`, or one with base64 if it is no text."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
