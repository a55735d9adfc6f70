"""Tokens of signed-in users: JSON web tokens with HS256, signed by the standard library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from imgo_client.django.conf import options
from imgo_client.frames import to_json

HEADER = {"alg": "HS256", "typ": "JWT"}


def user_key(user: Any) -> str:
    """Return a user's primary key as a subscriber key. This is the default `TOKEN_KEY`."""
    return str(user.pk)


def key_of(user: Any) -> str:
    """Return the subscriber key of a user, as the option `TOKEN_KEY` says."""
    return str(import_string(options().TOKEN_KEY)(user))


def rooms_of(user: Any) -> list[str] | None:
    """Return the rooms that a user may join; None: the server's `ROOMS_OPEN` decides.

    Raises TypeError for one string, whose letters would become the rooms.
    """
    path = options().TOKEN_ROOMS
    rooms: Iterable[str] | None = import_string(path)(user) if path else None
    if isinstance(rooms, str):
        raise TypeError(f"TOKEN_ROOMS: {path} must return a list of rooms, not {rooms!r}.")
    return None if rooms is None else list(rooms)


def info_of(user: Any) -> dict[str, Any] | None:
    """Return what others see of a user in rooms with presence; None: nothing but the key.

    Raises TypeError for anything else than a dictionary or None: the server takes only objects.
    """
    path = options().TOKEN_INFO
    info = import_string(path)(user) if path else None
    if info is not None and not isinstance(info, Mapping):
        raise TypeError(f"TOKEN_INFO: {path} must return a dictionary or None, not {info!r}.")
    return None if info is None else dict(info)


def token_for(user: Any) -> str:
    """Return a token with which a browser connects as this user, for `TOKEN_TTL` seconds.

    Raises ImproperlyConfigured without a `TOKEN_SECRET`.
    """
    return sign(key_of(user), rooms_of(user), info=info_of(user))


def sign(
    key: str,
    rooms: list[str] | None = None,
    seconds: float | None = None,
    info: Mapping[str, Any] | None = None,
) -> str:
    """Return a token for a key.

    `rooms`: names or `*` patterns. `seconds`: None: `TOKEN_TTL`. `info`: what others see of the key
    in rooms with presence, in the claim `info`, which the server's `JWT_INFO_CLAIM` must name.

    Raises ImproperlyConfigured without a `TOKEN_SECRET`.
    """
    opts = options()
    if not opts.TOKEN_SECRET:
        raise ImproperlyConfigured("IMGO_CLIENT['TOKEN_SECRET'] is missing: it signs tokens.")
    now = int(time.time())
    claims = {
        "sub": key,
        "rooms": rooms,
        "info": None if info is None else dict(info),
        "iat": now,
        "exp": now + (opts.TOKEN_TTL if seconds is None else seconds),
        "iss": opts.TOKEN_ISSUER or None,
        "aud": opts.TOKEN_AUDIENCE or None,
    }
    members = {name: value for name, value in claims.items() if value is not None}
    signed = f"{_part(to_json(HEADER).encode())}.{_part(to_json(members).encode())}"
    digest = hmac.digest(opts.TOKEN_SECRET.encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{_part(digest)}"


def _part(data: bytes) -> str:
    """Return base64url without padding: RFC 7515, section 2."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
