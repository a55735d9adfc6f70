"""Authenticator: turns an auth body and the facts of a connection into an identity or a refusal.

The default authenticator tries, in this order:

1. a JWT, if JWTs are configured and the token has their shape; this needs no query.
2. stored tokens, with one query for all logins of the same milliseconds.
3. if no token was sent, Django's session cookie of a browser on our own origin.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest
from django.utils.module_loading import import_string

from accounts import jwts
from accounts.auth_body import AuthBody
from accounts.models import FoundToken, Token, check_info, check_join, check_rooms, digest
from imgo_site.batching import BatchLoader
from imgo_site.browser_requests import is_foreign_page, is_own_origin
from imgo_site.conf import conf
from imgo_site.database_clock import DatabaseClock, Reading, boot_time
from imgo_site.database_threads import login_threads
from imgo_site.errors import BadRequest, NotAuthenticated
from imgo_site.names import check_name, matches_pattern
from imgo_site.room_policies import has_presence

__all__ = [  # for `AUTHENTICATOR`s of projects, which import them from here
    "AuthBody",
    "Facts",
    "Identity",
    "authenticate",
    "authorize_room",
    "user_key",
]

SESSION_KEY = re.compile("[A-Za-z0-9]{1,100}")

BROWSERS = frozenset({"websocket", "sse"})  # the transports that browsers have

# One text for wrong, expired and unknown tokens, so that it does not help a guesser.
REFUSED = "The token is not valid or has expired."


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a session: its key and its permissions.

    `rooms`: names or `*` patterns of rooms that it may join; None leaves that to `ROOMS_OPEN`.
    `expires_at`: Unix time in seconds when the session must end; None: never.
    `proof`: evidence of the login, which is checked again while the session is open.
    `alias`: another key for live messages, goim's key of a connection; nothing is stored for it.
    `join`: rooms that the session joins when it opens, as imgo's and goim's servers chose one for
    a connection. They need no permission by `rooms`, and none may have a `*`.
    `info`: what others in a room with presence see of the key, as a JSON object; None: nothing.
    """

    key: str
    rooms: tuple[str, ...] | None = None
    expires_at: float | None = None
    source: str = "token"
    proof: bytes = b""
    alias: str = ""
    join: tuple[str, ...] = ()
    info: dict[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.join or self.info is not None:
            try:
                check_join(list(self.join))
                check_info(self.info)
            except BadRequest as error:
                raise ValueError(error.message) from None


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a connection. Header names are lower-case.

    `clock`: the node's estimate of the database's time, by which tokens expire.
    `scheme`: "https" if the client's connection is encrypted; behind a proxy, if a trusted proxy
    reports that.
    """

    transport: str
    address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    clock: DatabaseClock = field(default_factory=DatabaseClock, compare=False, repr=False)
    scheme: str = "http"


Authenticator = Callable[[AuthBody, Facts], Awaitable[Identity]]
RoomAuthorizer = Callable[[Identity, str], Awaitable[bool]]


async def authenticate(body: AuthBody, facts: Facts) -> Identity:
    """Return the identity of a session. This is the default `AUTHENTICATOR`.

    Raises `NotAuthenticated` if the login is refused, and `BadRequest` if the body has a mistake.
    """
    if body.mistake:
        raise BadRequest(body.mistake)
    if body.token:
        if jwts.is_configured() and jwts.has_shape(body.token):
            return _from_claims(jwts.verify(body.token, facts.clock.now()))
        return await _from_stored_token(body.token, facts.clock)
    if conf.GOIM_TRUSTED and body.is_goim:
        if is_foreign_page(facts.headers, facts.scheme):
            raise NotAuthenticated(
                "A page of another site is not believed without a token: add its origin to "
                "CSRF_TRUSTED_ORIGINS, or give its clients tokens."
            )
        return _from_goim_body(body)
    if conf.SESSION_AUTH and facts.transport in BROWSERS and "cookie" in facts.headers:
        return await _from_session(facts)
    raise NotAuthenticated("No token was sent.")


def _from_claims(claims: dict[str, Any] | None) -> Identity:
    if claims is None:
        raise NotAuthenticated(REFUSED)
    key, rooms = claims.get(conf.JWT_KEY_CLAIM), claims.get(conf.JWT_ROOMS_CLAIM)
    join = claims.get(conf.JWT_JOIN_CLAIM)
    # Without presence nobody sees it, and the claim may mean something else.
    info = claims.get(conf.JWT_INFO_CLAIM) if has_presence() else None
    join = [] if join is None else join
    if conf.JWT_REQUIRE_EXP and "exp" not in claims:
        raise NotAuthenticated("The token has no 'exp' claim, which JWT_REQUIRE_EXP demands.")
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    try:
        check_name(key, "key")
        check_rooms(rooms)
        check_join(join)
    except BadRequest:
        raise NotAuthenticated(
            f"The token's claims {conf.JWT_KEY_CLAIM!r} and {conf.JWT_ROOMS_CLAIM!r} must be a "
            f"key and a list of rooms, {conf.JWT_JOIN_CLAIM!r} a list of rooms without '*'."
        ) from None
    try:
        check_info(info)
    except BadRequest as error:
        # The text is short: a close frame has room for 123 bytes.
        raise NotAuthenticated(f"Claim {conf.JWT_INFO_CLAIM!r}: {error.message}") from None
    allowed = None if rooms is None else tuple(rooms)
    expires = claims["exp"] + conf.JWT_LEEWAY if "exp" in claims else None
    return Identity(str(key), allowed, expires, "jwt", join=tuple(join), info=info or None)


def _from_goim_body(body: AuthBody) -> Identity:
    """Return the identity that a client of goim claims. As in goim, nothing verifies the claim."""
    if body.mid:
        return Identity(str(body.mid), source="goim", alias=body.goim_key)
    return Identity(body.goim_key or uuid4().hex, source="goim")


def _with_time(digests: list[str]) -> dict[str, tuple[FoundToken, Reading]]:
    """Query stored tokens together with the database's time; return both by digest."""
    begin = boot_time()
    tokens = Token.objects.by_digest(digests)
    if not tokens:
        return {}
    now = next(iter(tokens.values())).now  # one query, so all rows have the same time
    reading = Reading(now.timestamp(), begin, boot_time())
    return {name: (token, reading) for name, token in tokens.items()}


_stored_tokens: BatchLoader[str, tuple[FoundToken, Reading]] = BatchLoader(_with_time)


async def _from_stored_token(text: str, clock: DatabaseClock) -> Identity:
    row_and_reading = await _stored_tokens.get(digest(text))
    if row_and_reading is None:
        raise NotAuthenticated(REFUSED)
    token, reading = row_and_reading
    clock.take(reading)
    if token.is_expired:
        raise NotAuthenticated(REFUSED)
    rooms = None if token.rooms is None else tuple(token.rooms)
    expires = None if token.expires_at is None else token.expires_at.timestamp()
    proof = proof_of(token.digest)
    info = token.info or None
    try:
        check_info(info)
    except BadRequest as error:  # the setting was lowered since
        raise NotAuthenticated(f"The token's {error.message}") from None
    return Identity(token.key, rooms, expires, "token", proof, join=tuple(token.join), info=info)


def proof_of(token_digest: str) -> bytes:
    """Return the start of a stored token's digest, enough to detect that it was replaced."""
    return bytes.fromhex(token_digest)[:16]


async def _from_session(facts: Facts) -> Identity:
    user, expires, proof = await signed_in(facts)
    key: str = import_string(conf.SESSION_KEY)(user)
    return Identity(check_name(key, "key"), None, expires, "session", proof)


async def signed_in(facts: Facts) -> tuple[AbstractBaseUser, float | None, bytes]:
    """Return the Django user that the browser is signed in as, the end of the login, and its proof.

    The end is a Unix time by the database's clock.

    Raises `NotAuthenticated` if nobody is signed in, or if the page is not from our own origin.
    """
    if not _is_own_page(facts):
        raise NotAuthenticated("The session cookie is accepted from this site's own pages only.")
    cookie = _cookie(facts.headers["cookie"], settings.SESSION_COOKIE_NAME)
    if not SESSION_KEY.fullmatch(cookie):
        raise NotAuthenticated("No token was sent, and nobody is signed in.")
    user, left = await login_threads.run(_session_user, cookie)
    if user is None:
        raise NotAuthenticated("No token was sent, and nobody is signed in.")
    return user, facts.clock.now() + left, cookie.encode()


def _is_own_page(facts: Facts) -> bool:
    """Return whether a browser says that a page of ours has sent a request.

    An `EventSource` of our own origin sends no Origin, but browsers say so in another header, which
    no page can set.
    """
    if facts.transport == "sse" and not facts.headers.get("origin"):
        return facts.headers.get("sec-fetch-site") == "same-origin"
    return is_own_origin(facts.headers, facts.scheme)


def _cookie(header: str, name: str) -> str:
    """Return the value of a cookie in the form in which it was sent, "" if there is none.

    This does not use `http.cookies`. Before Python 3.11.10 and 3.12.6 its time grows with the
    square of the number of backslashes in a quoted value (CVE-2024-7592). A session's key needs no
    quotes.
    """
    cookie = ""
    for part in header.split(";"):
        key, _, value = part.partition("=")
        if key.strip() == name:
            cookie = value.strip()  # the last of several counts, as in Django
    return cookie


def _session_user(session_key: str) -> tuple[AbstractBaseUser | None, int]:
    """Return the active user of a Django session, or None, and the seconds until it ends."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    request = HttpRequest()
    request.session = store(session_key)
    user = get_user(request)
    if not user.is_authenticated or not user.is_active:
        return None, 0
    return user, request.session.get_expiry_age()


def user_key(user: AbstractBaseUser) -> str:
    """Return a user's primary key as a subscriber key. This is the default `SESSION_KEY`."""
    return str(user.pk)


async def authorize_room(identity: Identity, room: str) -> bool:
    """Return whether the identity's `join` or `rooms` include the room; `*` matches any text.

    This is the default `ROOM_AUTHORIZER`. `ROOMS_OPEN` decides for identities without `rooms`.
    """
    if room in identity.join:
        return True
    if identity.rooms is None:
        return conf.ROOMS_OPEN
    return any(matches_pattern(pattern, room) for pattern in identity.rooms)
