"""Base64url without padding (RFC 4648, section 5), as Web Push and JWTs have it."""

import base64
import re


def encode_base64url(data: bytes) -> str:
    """Return bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Return the bytes of base64url, with or without padding. Raises `ValueError`."""
    text = text.rstrip("=").replace("+", "-").replace("/", "_")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ValueError("characters that are not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
