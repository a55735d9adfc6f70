"""Signatures of requests to the user's backend, by the Standard Webhooks specification.

Source: Standard Webhooks 1.0.0, "Webhook headers" and "Signature scheme": HMAC-SHA256 over
`id.timestamp.body`, in base64, after the prefix "v1,". A secret is 24 to 64 bytes in base64, after
the prefix "whsec_".
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
HOW_TO_MAKE = (
    "python -c 'import base64, secrets; "
    'print("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())\''
)
SECRET_SIZES = range(24, 65)  # bytes


def secret_bytes(secret: str) -> bytes:
    """Return the key that a secret encodes. Raises `ValueError` with a text that lacks it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(key) not in SECRET_SIZES:
        raise ValueError(
            f"has {len(key)} bytes; {SECRET_SIZES.start} to {SECRET_SIZES.stop - 1} are allowed"
        )
    return key


def signed_headers(
    secrets: Sequence[str], request_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """Return the headers of a signed request: id, time, and a signature by each secret.

    `timestamp`: Unix time in seconds.
    `secrets`: more than one while a secret is being replaced. The receiver may know any of them.
    """
    signed = b".".join((request_id.encode(), str(timestamp).encode(), body))
    signatures = (
        base64.b64encode(hmac.digest(secret_bytes(secret), signed, hashlib.sha256)).decode()
        for secret in secrets
    )
    return {
        "webhook-id": request_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
