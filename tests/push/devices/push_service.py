"""A push service of the tests: it verifies VAPID, and decrypts with the keys of a browser."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .http2_server import Http2Server, Request, Response

# Of no real server.
VAPID_PRIVATE = "3KzvKasA2SoCxsp0iIG_o9B0Ozvl1XDwI63JRKNIWBM"
SUBJECT = "mailto:push@example.com"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


class Browser:
    """A subscription with its keys. What the service decrypts for it is in `shown`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        self.shown: list[dict[str, Any]] = []
        self.requests: list[Request] = []

    @property
    def subscription(self) -> dict[str, Any]:
        keys = {"p256dh": b64(point_of(self.private.public_key())), "auth": b64(self.auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def decrypt(self, body: bytes) -> bytes:
        """Decrypt a message as RFC 8188 and RFC 8291 say, written apart from the sender's code."""
        salt, size, sender = body[:16], int.from_bytes(body[16:20], "big"), body[21:86]
        assert body[20] == 65
        assert len(body) <= size == 4_096
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        shared = self.private.exchange(ec.ECDH(), public)
        info = b"WebPush: info\0" + point_of(self.private.public_key()) + sender
        secret = HKDF(hashes.SHA256(), 32, self.auth, info).derive(shared)
        key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
        nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
        plain = AESGCM(key).decrypt(nonce, body[86:], None)
        return plain.rstrip(b"\0").removesuffix(b"\x02")


class PushService(Http2Server):
    """A push service. `answers`: what it answers first, before it accepts; None: it hangs."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, self._answer)
        self.browsers: dict[str, Browser] = {}
        self.answers: list[Response | None] = []

    def subscribe(self) -> Browser:
        """Make the subscription of a new browser."""
        path = f"/wpush/{os.urandom(12).hex()}"
        browser = self.browsers[path] = Browser(self.url + path)
        return browser

    def settings(self, prefix: str = "") -> dict[str, Any]:
        """Settings of a server that sends to this service; texts, with a prefix for variables."""
        found = {
            "WEBPUSH_PRIVATE_KEY": VAPID_PRIVATE,
            "WEBPUSH_SUBJECT": SUBJECT,
            "WEBPUSH_HOSTS": [f"localhost:{self.port}"],
            "WEBPUSH_NETWORKS": ["127.0.0.0/8", "::1/128"],
            "NOTIFY_CA_FILE": str(self.ca_file),
        }
        if not prefix:
            return found
        return {
            prefix + name: ",".join(value) if isinstance(value, list) else value
            for name, value in found.items()
        }

    def _answer(self, request: Request) -> Response | None:
        self._verify(request)
        browser = self.browsers[request.path]
        browser.requests.append(request)
        if self.answers:
            return self.answers.pop(0)
        browser.shown.append(json.loads(browser.decrypt(request.body)))
        return Response(201, {"location": f"{self.url}/m/{len(browser.shown)}"})

    def _verify(self, request: Request) -> None:
        scheme, _, rest = request.headers["authorization"].partition(" ")
        members = dict(one.split("=", 1) for one in rest.split(", "))
        assert (scheme, request.method) == ("vapid", "POST")
        point = unb64(members["k"])
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        claims = jwt.decode(members["t"], public, algorithms=["ES256"], audience=self.url)
        assert claims["sub"] == SUBJECT
        assert request.headers["content-encoding"] == "aes128gcm"
        assert int(request.headers["ttl"]) > 0
