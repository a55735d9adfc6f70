"""Addresses of devices: validation of what apps and pages register, and their short form."""

import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import matches_pattern
from push.devices.base64url import decode_base64url, encode_base64url
from push.devices.tables import ProviderName

ENDPOINT_MAX = 2_048  # characters of the URL of a Web Push subscription
POINT_BYTES = 65  # an uncompressed point of P-256 (RFC 8291, section 3.1)
AUTH_BYTES = 16  # RFC 8291, section 3.2
SHOWN = 6  # characters at the end of an address that are shown

_HOST = re.compile(r"[a-z0-9.-]+")
_APNS_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){16,100}")
_FCM_TOKEN = re.compile(r"[A-Za-z0-9_:.%~-]{16,4096}")


@dataclass(frozen=True, slots=True)
class Address:
    """Valid address of a device. `text`: as it is stored."""

    provider: str
    text: str

    @property
    def digest(self) -> str:
        """Return what identifies the device: the same address always belongs to one device."""
        name = json.loads(self.text)["endpoint"] if self.provider == "webpush" else self.text
        return hashlib.sha256(f"{self.provider}\0{name}".encode()).hexdigest()


def shortened(provider: str, text: str) -> str:
    """Return an address for people: the host of a Web Push endpoint, and the last characters."""
    if provider != ProviderName.WEBPUSH:
        return f"…{text[-SHOWN:]}"
    endpoint = str(json.loads(text)["endpoint"])
    return f"https://{urlsplit(endpoint).netloc}/…{endpoint[-SHOWN:]}"


def address_of(provider: str, subscription: object, token: object) -> Address:
    """Return the address that a registration names.

    `subscription`: of Web Push, as `PushSubscription.toJSON()` gives it. `token`: of APNs or FCM.
    The other one must be None.

    Raises `BadRequest`. No error contains the address.
    """
    if provider not in ProviderName.values:
        known = ", ".join(ProviderName.values)
        raise BadRequest(f"There is no provider {provider[:40]!r}; there are: {known}.")
    if provider not in configured():
        raise BadRequest(f"The provider {provider!r} is not configured on this server.")
    if provider == ProviderName.WEBPUSH:
        if token is not None:
            raise BadRequest("A webpush device has a 'subscription', and no 'token'.")
        return Address(provider, _subscription(subscription))
    if subscription is not None:
        raise BadRequest(f"An {provider} device has a 'token', and no 'subscription'.")
    pattern = _APNS_TOKEN if provider == ProviderName.APNS else _FCM_TOKEN
    if not isinstance(token, str) or not pattern.fullmatch(token):
        raise BadRequest(f"'token' is not a device token of {ProviderName(provider).label}.")
    return Address(provider, token.lower() if provider == ProviderName.APNS else token)


def configured() -> list[str]:
    """Return the providers that the settings configure."""
    credentials = {
        ProviderName.WEBPUSH: conf.WEBPUSH_PRIVATE_KEY,
        ProviderName.APNS: conf.APNS_KEY,
        ProviderName.FCM: conf.FCM_CREDENTIALS,
    }
    return [str(name) for name, value in credentials.items() if value]


def _subscription(value: object) -> str:
    """Return the JSON of a checked subscription."""
    members: Any = value if isinstance(value, dict) else {}
    keys: Any = members.get("keys")
    keys = keys if isinstance(keys, dict) else {}
    endpoint = members.get("endpoint")
    if not isinstance(endpoint, str) or len(endpoint) > ENDPOINT_MAX:
        raise BadRequest(
            f"'subscription.endpoint' must be a URL of at most {ENDPOINT_MAX} characters."
        )
    check_endpoint(endpoint)
    point = _decoded(keys.get("p256dh"), "p256dh", POINT_BYTES)
    auth = _decoded(keys.get("auth"), "auth", AUTH_BYTES)
    _check_point(point)
    return json.dumps(
        {"endpoint": endpoint, "p256dh": encode_base64url(point), "auth": encode_base64url(auth)}
    )


def check_endpoint(endpoint: str) -> None:
    """Raise `BadRequest` unless this is an https URL of a host in `WEBPUSH_HOSTS`."""
    try:
        parts = urlsplit(endpoint)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise BadRequest("'subscription.endpoint' is not a URL.") from None
    # Parsers of URLs differ in what they make of other characters.
    plain = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    if parts.scheme != "https" or not _HOST.fullmatch(host) or not plain or "@" in parts.netloc:
        raise BadRequest("'subscription.endpoint' must be an https URL without user and password.")
    name = host if port in (None, 443) else f"{host}:{port}"
    if not any(matches_pattern(pattern.lower(), name) for pattern in conf.WEBPUSH_HOSTS):
        raise BadRequest(
            f"'subscription.endpoint' has the host {name[:100]!r}, which is not in WEBPUSH_HOSTS: "
            "the server calls only hosts of known push services."
        )


def _check_point(point: bytes) -> None:
    # pyjwt[crypto] brings it. Imported here, because most processes register no device.
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise BadRequest("'subscription.keys.p256dh' is not a point of the curve P-256.") from None


def _decoded(value: object, name: str, size: int) -> bytes:
    """Return base64url, with or without padding, as bytes of this size."""
    try:
        decoded = decode_base64url(value) if isinstance(value, str) else b""
    except (ValueError, binascii.Error):
        decoded = b""
    if len(decoded) != size:
        raise BadRequest(f"'subscription.keys.{name}' must be {size} bytes in base64url.")
    return decoded
