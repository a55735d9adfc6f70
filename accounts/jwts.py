"""JSON web tokens, verified by PyJWT with the keys that the settings name."""

import functools
import logging
from pathlib import Path
from typing import Any

import jwt

from imgo_site.conf import conf

logger = logging.getLogger(__name__)


def is_configured() -> bool:
    """Whether any key to verify a JWT with is set."""
    return bool(conf.JWT_SECRET or conf.JWT_PUBLIC_KEY or conf.JWT_JWKS_FILE)


def has_shape(token: str) -> bool:
    """Whether `token` looks like a signed JWT: three parts between dots."""
    return token.count(".") == 2


def verify(token: str) -> dict[str, Any] | None:
    """The claims of a token that is signed by us and valid now, or None.

    The algorithm is fixed by the kind of key that is configured, never by the token's header
    alone (RFC 8725, section 3.1).
    """
    try:
        header = jwt.get_unverified_header(token)
        key = _key_for(header)
        if key is None:
            return None
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[header["alg"]],
            issuer=conf.JWT_ISSUER or None,
            audience=conf.JWT_AUDIENCE or None,
            leeway=conf.JWT_LEEWAY,
            # The subject may be a number: imgo's user ids are.
            options={"verify_aud": bool(conf.JWT_AUDIENCE), "verify_sub": False},
        )
    except (jwt.PyJWTError, UnicodeEncodeError, OverflowError, TypeError):
        return None
    return claims


def _key_for(header: dict[str, Any]) -> Any:
    """The configured key for the algorithm and key id that the header names."""
    algorithm = header.get("alg")
    if algorithm == "HS256":
        return conf.JWT_SECRET or None
    if algorithm != "RS256":
        return None
    if conf.JWT_JWKS_FILE:
        path = Path(conf.JWT_JWKS_FILE)
        try:
            keys = _jwks(conf.JWT_JWKS_FILE, path.stat().st_mtime_ns)
        except (OSError, ValueError, AttributeError, TypeError, jwt.PyJWTError) as error:
            logger.error("JWT_JWKS_FILE %s cannot be used: %s", path, error)
            keys = {}
        kid = header.get("kid")
        found = keys.get(kid) if kid else next(iter(keys.values()), None)
        if found is not None:
            return found
    if conf.JWT_PUBLIC_KEY:
        try:
            return _public_key(conf.JWT_PUBLIC_KEY)
        except (OSError, ValueError) as error:
            logger.error("JWT_PUBLIC_KEY cannot be used: %s", error)
    return None


@functools.lru_cache(maxsize=4)
def _jwks(path: str, modified: int) -> dict[str | None, Any]:  # noqa: ARG001 - part of the cache key
    """The RS256 keys of a JWKS file by key id; read again when the file changes."""
    jwks = jwt.PyJWKSet.from_json(Path(path).read_text())
    return {key.key_id: key.key for key in jwks.keys if key.key_type == "RSA"}


@functools.lru_cache(maxsize=4)
def _public_key(setting: str) -> str:
    """The PEM text itself, or the text of the file that the setting names."""
    return setting if "-----BEGIN" in setting else Path(setting).read_text()
