"""Signatures of webhooks and hooks, by the Standard Webhooks specification 1.0."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence

from imgo_client.django.conf import WEBHOOK_PREFIX

VERSION = "v1"
ID_MAX = 255  # characters of an id, the width of its column


class BadSignature(Exception):
    """A request that is not signed with one of our secrets, or too old; the text says which."""


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(WEBHOOK_PREFIX))
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    digest = hmac.digest(key, signed, hashlib.sha256)
    return f"{VERSION},{base64.b64encode(digest).decode()}"


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], age: float) -> str:
    """Return the webhook's id if it is signed with one of the secrets and recent.

    `headers`: their names are looked up in lower case.
    `age`: seconds that the timestamp may differ from now, in both directions.

    Raises BadSignature.
    """
    webhook_id = headers.get("webhook-id", "")
    if not webhook_id or len(webhook_id) > ID_MAX or not webhook_id.isprintable():
        raise BadSignature("The header webhook-id is missing or malformed.")
    timestamp = _timestamp_of(headers.get("webhook-timestamp", ""))
    signatures = headers.get("webhook-signature", "").split()
    expected = [sign(secret, webhook_id, timestamp, body).encode() for secret in secrets]
    # All are compared, so that the time does not depend on which one is right.
    matches = [
        hmac.compare_digest(signature.encode(), own) for signature in signatures for own in expected
    ]
    if not any(matches):
        raise BadSignature("The header webhook-signature has no signature by a known secret.")
    if abs(time.time() - timestamp) > age:
        raise BadSignature("The header webhook-timestamp is too far from this server's time.")
    return webhook_id


def _timestamp_of(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadSignature("The header webhook-timestamp is missing or malformed.")
    return int(text)
