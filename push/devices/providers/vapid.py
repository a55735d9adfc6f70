"""VAPID (RFC 8292): the key by which push services know this server."""

import time
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from push.devices.base64url import decode_base64url, encode_base64url

LIFETIME = 12 * 3_600  # seconds of a token; the RFC allows 24 hours
RENEW = 3_600  # seconds before its end when a token is replaced
KEY_BYTES = 32


def new_private_key() -> str:
    """Return a new private key, 32 bytes in base64url."""
    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return encode_base64url(number.to_bytes(KEY_BYTES, "big"))


def read_private_key(text: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of `WEBPUSH_PRIVATE_KEY`: 32 bytes in base64url, or PEM text.

    Raises `ValueError`. No error contains the key.
    """
    if "-----BEGIN" in text:
        try:
            key = load_pem_private_key(text.encode(), None)
        except (ValueError, TypeError):
            raise ValueError("it is not PEM text of a private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("it is not a key of the curve P-256")
        return key
    try:
        scalar = decode_base64url(text.strip())
    except ValueError:
        scalar = b""
    if len(scalar) != KEY_BYTES:
        raise ValueError(f"it must be {KEY_BYTES} bytes in base64url, or PEM text")
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())


def public_key_of(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key for pages and headers: a point in base64url."""
    return encode_base64url(
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )


class Vapid:
    """Signer of one key, which keeps a token for each push service.

    `subject`: contact of the operator, a mailto: or https: URL.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, subject: str) -> None:
        self._key = key
        self._subject = subject
        self._public = public_key_of(key)
        self._tokens: dict[str, tuple[float, str]] = {}  # by origin: Unix time of its end, token

    def authorization(self, endpoint: str) -> str:
        """Return the Authorization header for an endpoint."""
        parts = urlsplit(endpoint)
        origin = f"{parts.scheme}://{parts.netloc}"
        now = time.time()
        end, token = self._tokens.get(origin, (0.0, ""))
        # Services refuse a token that ends later: the clock was set back since it was signed.
        if not now + RENEW <= end <= now + LIFETIME:
            end = now + LIFETIME
            claims = {"aud": origin, "exp": int(end), "sub": self._subject}
            token = jwt.encode(claims, self._key, algorithm="ES256")
            self._tokens = {  # those that have ended make room
                known: kept for known, kept in self._tokens.items() if kept[0] > now
            }
            self._tokens[origin] = (end, token)
        return f"vapid t={token}, k={self._public}"
