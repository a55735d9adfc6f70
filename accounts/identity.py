"""From an auth body and what is known of the connection to an identity, or a refusal.

The default authenticator tries, in this order: a JWT when one is configured and the token has its
shape (no query at all), stored tokens (one query for all that ask in the same milliseconds), and,
when no token was sent, Django's session cookie of a browser on our own origin.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest
from django.utils.http import is_same_domain
from django.utils.module_loading import import_string

from accounts import jwts
from accounts.models import TOKEN_MAX, Token, check_rooms, digest
from imgo_site.batching import BatchLoader, database_threads
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, NotAuthenticated
from imgo_site.names import INT32_MAX, INT64_MAX, check_name, check_number

SESSION_KEY = re.compile("[A-Za-z0-9]{1,100}")

# One text for wrong, expired and unknown: a guesser learns nothing from it.
REFUSED = "The token is not valid or has expired."


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session belongs to.

    `rooms`: names or `*` patterns that it may join; None leaves that to `ROOMS_OPEN`.
    `expires_at`: Unix time in seconds when the session must end; None: never. `proof`: what it
    was verified by, to look at again while the session is open. `alias`: another key that live
    messages reach it by, goim's key of a connection; nothing is kept for it.
    """

    key: str
    rooms: tuple[str, ...] | None = None
    expires_at: float | None = None
    source: str = "token"
    proof: bytes = b""
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a connection. Header names are lower-case."""

    transport: str
    address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuthBody:
    """What a client says in its auth frame. Nothing in it is believed before it is verified.

    `change_room` is the room that a later op 12 leaves: goim's one room a session. `accepts`:
    the own ops that it takes; None: all. `is_goim`: it is goim's, and says who it is by `mid` and
    `goim_key`.
    """

    token: str = ""
    rooms: tuple[str, ...] = ()
    change_room: str = ""
    ack: bool = False
    since: int = 0
    platform: str = ""
    device: str = ""
    accepts: tuple[int, ...] | None = None
    is_goim: bool = False
    mid: int = 0
    goim_key: str = ""


Authenticator = Callable[[AuthBody, Facts], Awaitable[Identity]]
RoomAuthorizer = Callable[[Identity, str], Awaitable[bool]]


def parse_auth_body(body: bytes) -> AuthBody:
    """imgo's bare token (also as a JSON string), or a JSON object. Raises `BadRequest`."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The auth body must be UTF-8 text.") from None
    # A token such as 12345 is valid JSON too, but what was sent is the text.
    token = text
    if text.lstrip()[:1] in ("{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return _from_object(value)
        if isinstance(value, str):
            token = value
    if len(token) > TOKEN_MAX * 4:
        raise BadRequest("The token is too long.")
    return AuthBody(token=token)


def _from_object(value: dict[str, Any]) -> AuthBody:
    rooms = value.get("rooms") or []
    if not isinstance(rooms, list):
        raise BadRequest("'rooms' must be a list of room names.")
    rooms = [check_name(room, "room") for room in rooms]
    if value.get("room_id"):  # goim
        rooms.append(check_name(value["room_id"], "room"))
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        raise BadRequest(f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most.")
    texts = {}
    for name in ("token", "platform", "device", "key"):
        texts[name] = value.get(name) or ""
        if not isinstance(texts[name], str):
            raise BadRequest(f"{name!r} must be a string.")
    if texts["key"]:
        check_name(texts["key"], "key")
    return AuthBody(
        token=texts["token"],
        rooms=tuple(dict.fromkeys(rooms)),
        change_room=rooms[-1] if len(rooms) == 1 else "",
        ack=value.get("ack") is True,
        since=check_number(value.get("since") or 0, "'since'", lowest=0, highest=INT64_MAX),
        platform=texts["platform"][:50],
        device=texts["device"][:100],
        # Go writes null for a list that is not there, and goim takes that for none.
        accepts=check_ops(value["accepts"] or []) if "accepts" in value else None,
        is_goim=any(name in value for name in ("mid", "room_id", "accepts")),
        mid=check_number(value.get("mid") or 0, "'mid'", lowest=0, highest=INT64_MAX),
        goim_key=texts["key"],
    )


def check_ops(ops: object) -> tuple[int, ...]:
    """Ops that a client takes. Raises `BadRequest`."""
    if not isinstance(ops, list):
        raise BadRequest("The ops that a session accepts are a list of numbers.")
    return tuple(check_number(op, "An op", lowest=0, highest=INT32_MAX) for op in ops)


async def authenticate(body: AuthBody, facts: Facts) -> Identity:
    """The default `AUTHENTICATOR`. Raises `NotAuthenticated`."""
    if body.token:
        if jwts.is_configured() and jwts.has_shape(body.token):
            return _from_claims(jwts.verify(body.token))
        return await _from_stored_token(body.token)
    if conf.GOIM_TRUSTED and body.is_goim:
        return _as_it_says(body)
    if conf.SESSION_AUTH and facts.transport == "websocket" and "cookie" in facts.headers:
        return await _from_session(facts)
    raise NotAuthenticated("No token was sent.")


def _from_claims(claims: dict[str, Any] | None) -> Identity:
    if claims is None:
        raise NotAuthenticated(REFUSED)
    key, rooms = claims.get(conf.JWT_KEY_CLAIM), claims.get(conf.JWT_ROOMS_CLAIM)
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    try:
        check_name(key, "key")
        check_rooms(rooms)
        expires = float(claims["exp"]) if "exp" in claims else None
    except (BadRequest, TypeError, ValueError):
        raise NotAuthenticated(
            f"The token's claims {conf.JWT_KEY_CLAIM!r} and {conf.JWT_ROOMS_CLAIM!r} must be a "
            "key and a list of rooms."
        ) from None
    return Identity(str(key), None if rooms is None else tuple(rooms), expires, "jwt")


def _as_it_says(body: AuthBody) -> Identity:
    """Whom a client of goim says it is: goim believes that, and so do we with `GOIM_TRUSTED`."""
    if body.mid:
        return Identity(str(body.mid), source="goim", alias=body.goim_key)
    return Identity(body.goim_key or uuid4().hex, source="goim")


_stored_tokens: BatchLoader[str, Token] = BatchLoader(Token.objects.by_digest)


async def _from_stored_token(text: str) -> Identity:
    token = await _stored_tokens.get(digest(text))
    if token is None or token.is_expired(token.now):  # type: ignore[attr-defined]  # annotated
        raise NotAuthenticated(REFUSED)
    rooms = None if token.rooms is None else tuple(token.rooms)
    expires = None
    if token.expires_at is not None:  # by the database's clock; a session ends by this process's
        left = token.expires_at - token.now  # type: ignore[attr-defined]
        expires = time.time() + left.total_seconds()
    return Identity(token.key, rooms, expires, "token", proof_of(token.digest))


def proof_of(token_digest: str) -> bytes:
    """Enough of a stored token's digest to see that it has been replaced."""
    return bytes.fromhex(token_digest)[:16]


def is_own_origin(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that its page came from this host or a `CSRF_TRUSTED_ORIGINS`.

    A cookie is sent along by any page on the web, so a missing Origin is refused too: native
    clients, which send none, have tokens.
    """
    try:
        origin = urlsplit(headers.get("origin", ""))
    except ValueError:
        return False
    if not origin.netloc:
        return False
    if origin.netloc.lower() == headers.get("host", "").lower():
        return True
    return any(
        origin.scheme == trusted.scheme
        and is_same_domain(origin.netloc, trusted.netloc.lstrip("*"))
        for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
    )


async def _from_session(facts: Facts) -> Identity:
    user, expires, proof = await signed_in(facts)
    key: str = import_string(conf.SESSION_KEY)(user)
    return Identity(check_name(key, "key"), None, expires, "session", proof)


async def signed_in(facts: Facts) -> tuple[AbstractBaseUser, float | None, bytes]:
    """The Django user whose browser this is, when the login ends, and its proof.

    Raises `NotAuthenticated`, for a page that is not ours too.
    """
    if not is_own_origin(facts.headers):
        raise NotAuthenticated("The session cookie is accepted from this site's own pages only.")
    try:
        cookie = SimpleCookie(facts.headers["cookie"]).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        cookie = None
    if cookie is None or not SESSION_KEY.fullmatch(cookie.value):
        raise NotAuthenticated("No token was sent, and nobody is signed in.")
    user, expires = await database_threads.run(_session_user, cookie.value)
    if user is None:
        raise NotAuthenticated("No token was sent, and nobody is signed in.")
    return user, expires, cookie.value.encode()


def _session_user(session_key: str) -> tuple[AbstractBaseUser | None, float | None]:
    """The signed-in, active user of a session and the time when the session ends."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    request = HttpRequest()
    request.session = store(session_key)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        return None, None
    return user, time.time() + request.session.get_expiry_age()


def user_key(user: AbstractBaseUser) -> str:
    """The default `SESSION_KEY`: a user's primary key."""
    return str(user.pk)


async def authorize_room(identity: Identity, room: str) -> bool:
    """The default `ROOM_AUTHORIZER`: the rooms the identity names, `*` standing for anything."""
    if identity.rooms is None:
        return conf.ROOMS_OPEN
    return any(_matches(pattern, room) for pattern in identity.rooms)


def _matches(pattern: str, room: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), room) is not None
