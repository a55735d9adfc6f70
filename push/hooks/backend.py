"""Calls of the hooks: authenticate a client, authorize a room, answer an upstream message.

Each converts the backend's answer, and raises `Unavailable` if there is no usable one. So no client
is accepted while the backend fails, and clients reconnect later.
"""

import base64
from collections.abc import Callable
from typing import Any, Literal

from accounts.auth_body import AuthBody
from accounts.identity import Facts, Identity
from accounts.models import check_info, check_join, check_rooms
from imgo_site.errors import BadRequest, Forbidden, ImgoError, NotAuthenticated
from imgo_site.names import check_name
from push.hooks.client import Answer, Hook, HookClient

SOURCE = "hook"  # of the identities
CODE_MAX, REASON_MAX = 100, 1000  # characters of a refusal that a client gets
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
    question = {
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
    accepted: list[Identity] = []
    await client.call(
        Hook.AUTHENTICATE,
        question,
        is_gone,
        lambda value: accepted.append(_identity(value, facts)),
    )
    if not accepted:
        raise NotAuthenticated("The token is not valid or has expired.")
    return accepted[0]


def _identity(value: Any, facts: Facts) -> Identity:
    """Return the identity in an answer. Raises `BadRequest`."""
    if not isinstance(value, dict):
        raise BadRequest("It must be a JSON object with a 'key'.")
    key, rooms = value.get("key"), value.get("rooms")
    join, expires_in = value.get("join") or [], value.get("expires_in")
    check_name(key, "key")
    check_rooms(rooms)
    check_join(join)
    check_info(value.get("info"))
    if expires_in is None:
        expires = None
    elif isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        raise BadRequest("'expires_in' must be a number of seconds, or null.")
    elif not 0 < expires_in <= EXPIRES_MAX:
        raise BadRequest(f"'expires_in' must be above 0 and at most {EXPIRES_MAX:.0f}.")
    else:
        expires = facts.clock.now() + expires_in
    allowed = None if rooms is None else tuple(rooms)
    info = value.get("info") or None
    return Identity(str(key), allowed, expires, SOURCE, join=tuple(join), info=info)


async def authorize_room(
    client: HookClient,
    identity: Identity,
    room: str,
    is_gone: Callable[[], bool],
    action: Literal["join", "publish"] = "join",
) -> bool:
    """Return whether the backend lets an identity join a room, or publish to it.

    Raises `Unavailable`.
    """
    question = {
        "key": identity.key,
        "room": room,
        "source": identity.source,
        "action": action,
    }
    answer = await client.call(Hook.AUTHORIZE_ROOM, question, is_gone, _check_permission)
    return answer.status not in (401, 403) and bool(answer.body["allowed"])


def _check_permission(value: Any) -> None:
    """Raise `BadRequest` unless the value says whether a room may be joined."""
    if not isinstance(value, dict) or not isinstance(value.get("allowed"), bool):
        raise BadRequest("It must be a JSON object with 'allowed', true or false.")


async def receive(client: HookClient, identity: Identity, op: int, body: Any) -> Any:
    """Return the backend's reply to an upstream message; None for an empty answer.

    Raises `Forbidden` or `BadRequest` for an answer of 4xx, with the code and the message that it
    names, and `Unavailable`.
    """
    question: dict[str, Any] = {"key": identity.key, "op": op}
    question |= _bytes_member("body", body) if isinstance(body, bytes) else {"body": body}
    answer = await client.call(Hook.RECEIVE, question)
    if answer.status >= 400:
        raise _refusal(answer)
    return answer.body


def _refusal(answer: Answer) -> ImgoError:
    """Return the error of a refusal, with the code and message that its body names."""
    reason = answer.body.get("error") if isinstance(answer.body, dict) else None
    named = reason if isinstance(reason, dict) else {}
    code, message = named.get("code"), named.get("message")
    if not isinstance(message, str) or not message:
        message = "The message was refused."
    kind = Forbidden if answer.status in (401, 403) else BadRequest
    error = kind(message[:REASON_MAX])
    if isinstance(code, str) and 0 < len(code) <= CODE_MAX:
        error.code = code
    return error


def _bytes_member(name: str, data: bytes) -> dict[str, str]:
    """Return a member with the text of `data`, or one with base64 if it is no text."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
