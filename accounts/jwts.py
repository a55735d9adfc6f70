"""Verification of JSON web tokens, by PyJWT with the keys that the settings name."""

import functools
import hmac
import json
import logging
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm, RSAAlgorithm

from imgo_site.conf import conf

TIME_MAX = 2**53  # Unix seconds that a float holds exactly

logger = logging.getLogger(__name__)

# Errors that reading a file with keys may raise, whatever its content is.
_UNREADABLE = (OSError, ValueError, AttributeError, TypeError, jwt.PyJWTError)


class _Hmac(HMACAlgorithm):
    """HMAC with SHA-256, whose key is examined once, and not again for each token.

    PyJWT checks whether the key is a certificate, a public key or a JWK, which takes more time than
    verifying a signature.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        """Return the key's bytes. Raises `jwt.InvalidKeyError` if it is no secret."""
        return self._prepared(key)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - there is one object, for ever
    def _prepared(self, key: str | bytes) -> bytes:
        return super().prepare_key(key)

    def sign(self, msg: bytes, key: bytes) -> bytes:
        """Return the signature, as PyJWT does, but with one call of OpenSSL."""
        return hmac.digest(key, msg, "sha256")


_ALGORITHMS = {"HS256": _Hmac(_Hmac.SHA256), "RS256": RSAAlgorithm(RSAAlgorithm.SHA256)}


def is_configured() -> bool:
    """Return whether a setting names any key that verifies JWTs."""
    return bool(conf.JWT_SECRET or conf.JWT_PUBLIC_KEY or conf.JWT_JWKS_FILE)


def has_shape(token: str) -> bool:
    """Return whether `token` looks like a signed JWT: three parts separated by dots."""
    return token.count(".") == 2


def verify(token: str, now: float) -> dict[str, Any] | None:
    """Return the claims of a token if its signature, issuer, audience and times are valid, or None.

    `now`: Unix time in seconds. A token with an audience is valid only if JWT_AUDIENCE is in it
    (RFC 7519, section 4.1.3), so tokens for other services are refused. The kind of the configured
    key decides the algorithm. The token's header cannot choose another (RFC 8725, section 3.1).
    """
    signed, _, signature = token.rpartition(".")
    segment, _, payload = signed.partition(".")
    try:
        header = _header(segment)
        key = _key_for(header)
        if key is None:
            return None
        algorithm = _ALGORITHMS[header["alg"]]
        prepared: Any = algorithm.prepare_key(key)
        if not algorithm.verify(signed.encode(), prepared, _decoded(signature)):
            return None
        claims = json.loads(_decoded(payload))
    except (jwt.PyJWTError, ValueError, RecursionError, OverflowError, TypeError):
        return None
    if not isinstance(claims, dict) or not _is_for_us(claims):
        return None
    return claims if _is_current(claims, now) else None


@functools.lru_cache(maxsize=32)
def _header(segment: str) -> dict[str, Any]:
    """Return the header of a token from its first part. Most tokens share a few headers.

    Raises `jwt.PyJWTError` or `ValueError` for an invalid header, and for one with `crit`: the only
    extension that PyJWT knows is a payload outside of the token, which would be refused.
    """
    header = jwt.get_unverified_header(f"{segment}..")
    if "crit" in header or header.get("b64", True) is not True:
        raise jwt.InvalidTokenError("a header names an extension that no token here may have")
    return header


def _decoded(segment: str) -> bytes:
    """Return the bytes of a part of a token in base64url. Raises `ValueError` if it is invalid.

    PyJWT looks at each character, which takes longer than all the rest of a verification. Encoding
    the result again detects every other spelling. Like PyJWT, accept padding: some issuers add it.
    """
    data = segment.encode()
    bare = data.rstrip(b"=")
    padding = b"=" * (-len(bare) % 4)
    if data not in (bare, bare + padding):
        raise ValueError("the padding has another length")
    decoded = urlsafe_b64decode(bare + padding)
    if urlsafe_b64encode(decoded) != bare + padding:
        raise ValueError("there are other characters than those of base64url")
    return decoded


def _is_for_us(claims: dict[str, Any]) -> bool:
    """Return whether issuer and audience are those of the settings, and the token's id is text."""
    if conf.JWT_ISSUER and claims.get("iss") != conf.JWT_ISSUER:
        return False
    if not isinstance(claims.get("jti", ""), str):
        return False
    if not conf.JWT_AUDIENCE:
        return "aud" not in claims
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return False
    return conf.JWT_AUDIENCE in named


def _is_current(claims: dict[str, Any], now: float) -> bool:
    """Return whether those of `exp`, `nbf` and `iat` that are present allow the token at `now`.

    Each is extended by JWT_LEEWAY seconds in the token's favour.
    """
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(_is_number(value) for value in times.values()):
        return False
    ends = times.get("exp", math.inf) + conf.JWT_LEEWAY
    begins = max(times.get("nbf", 0), times.get("iat", 0)) - conf.JWT_LEEWAY
    return bool(begins <= now < ends)


def _is_number(value: object) -> bool:
    """Return whether `value` is a time. Python's JSON parser also accepts NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= TIME_MAX


def _key_for(header: dict[str, Any]) -> Any:
    """Return the configured key for the header's algorithm and key id, or None."""
    algorithm = header.get("alg")
    if algorithm == "HS256":
        return conf.JWT_SECRET or None
    if algorithm != "RS256":
        return None
    if conf.JWT_JWKS_FILE:
        try:
            keys = _jwks_keys()
        except _UNREADABLE as error:
            logger.error("JWT_JWKS_FILE %s cannot be used: %s", conf.JWT_JWKS_FILE, error)
            keys = {}
        kid = header.get("kid")
        key = keys.get(kid) if kid else next(iter(keys.values()), None)
        if key is not None:
            return key
    if conf.JWT_PUBLIC_KEY:
        try:
            return _public_key(conf.JWT_PUBLIC_KEY)
        except _UNREADABLE as error:
            logger.error("JWT_PUBLIC_KEY cannot be used: %s", error)
    return None


def unusable_keys() -> Iterator[tuple[str, str]]:
    """Yield (setting, reason) for each public key that is set but cannot verify any token."""
    try:
        if conf.JWT_JWKS_FILE and not _jwks_keys():
            yield "JWT_JWKS_FILE", "it has no RS256 key"
    except _UNREADABLE as error:
        yield "JWT_JWKS_FILE", str(error)
    try:
        if conf.JWT_PUBLIC_KEY:
            _public_key(conf.JWT_PUBLIC_KEY)
    except _UNREADABLE as error:
        yield "JWT_PUBLIC_KEY", str(error)


def _jwks_keys() -> dict[str | None, Any]:
    return _jwks(conf.JWT_JWKS_FILE, Path(conf.JWT_JWKS_FILE).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _jwks(path: str, modified: int) -> dict[str | None, Any]:  # noqa: ARG001 - part of the cache key
    """Return the RS256 keys of a JWKS file by key id.

    `modified`: the file's modification time, so that a changed file is read again.
    """
    jwks = jwt.PyJWKSet.from_json(Path(path).read_text())
    return {key.key_id: key.key for key in jwks.keys if key.key_type == "RSA"}


@functools.lru_cache(maxsize=4)
def _public_key(setting: str) -> Any:
    """Return the key of PEM text, which is the setting or in the file that it names.

    Raises an error of `_UNREADABLE`.
    """
    text = setting if "-----BEGIN" in setting else Path(setting).read_text()
    return RSAAlgorithm(RSAAlgorithm.SHA256).prepare_key(text)
