"""APNs and FCM of the tests: servers that verify tokens, and answer what a test chooses."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from push.devices.providers import fcm

from .http2_server import Http2Server, Request, Response

APPLE_KEY = ec.generate_private_key(ec.SECP256R1())
APPLE_PEM = APPLE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SENT = "projects/shop/messages/0:17"


class MobileService(Http2Server):
    """A service of phones.

    `answers`: what it answers first, before it accepts. `answers_to`: the same by device token.
    None: it hangs.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home, self._answer)
        self.home = home
        self.answers: list[Response | None] = []
        self.answers_to: dict[str, list[Response | None]] = {}

    def settings(self) -> dict[str, str]:
        """Settings of a server that sends to this service, with the paths of secrets."""
        raise NotImplementedError

    def requests_to(self, token: str) -> list[Request]:
        """Requests for one device."""
        return [request for request in self.requests if self.token_of(request) == token]

    def token_of(self, request: Request) -> str:
        raise NotImplementedError

    def verify(self, request: Request) -> Response | None:
        """Check the server's authentication. A response: of a request that is no notification."""
        raise NotImplementedError

    def accept(self, request: Request) -> Response:
        raise NotImplementedError

    def _answer(self, request: Request) -> Response | None:
        if found := self.verify(request):
            return found
        for answers in (self.answers, self.answers_to.get(self.token_of(request))):
            if answers:
                return answers.pop(0)
        return self.accept(request)


class Apple(MobileService):
    """Stand-in for Apple's service (APNs)."""

    def settings(self) -> dict[str, str]:
        (self.home / "key.p8").write_text(APPLE_PEM)
        return {
            "APNS_KEY": str(self.home / "key.p8"),
            "APNS_KEY_ID": "KEY1234567",
            "APNS_TEAM_ID": "TEAM123456",
            "APNS_TOPIC": "com.example.shop",
            "APNS_SERVER": self.url,
            "NOTIFY_CA_FILE": str(self.ca_file),
        }

    def token_of(self, request: Request) -> str:
        return request.path.rpartition("/")[2]

    def verify(self, request: Request) -> None:
        scheme, _, token = request.headers["authorization"].partition(" ")
        options = {"verify_iat": False}  # tests move the clock
        public = APPLE_KEY.public_key()
        claims = jwt.decode(token, public, algorithms=["ES256"], options=options)
        assert (scheme, claims["iss"]) == ("bearer", "TEAM123456")
        assert jwt.get_unverified_header(token)["kid"] == "KEY1234567"

    def accept(self, request: Request) -> Response:
        return Response(200, {"apns-id": request.headers["apns-id"]})


class Google(MobileService):
    """FCM, and the token service."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self.token_status = 200
        self.tokens = 0

    def settings(self) -> dict[str, str]:
        (self.home / "account.json").write_text(self.credentials())
        return {
            "FCM_CREDENTIALS": str(self.home / "account.json"),
            "FCM_SERVER": self.url,
            "NOTIFY_CA_FILE": str(self.ca_file),
        }

    def credentials(self) -> str:
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "shop",
                "client_email": "push@shop.test",
                "private_key": pem.decode(),
                "token_uri": f"{self.url}/token",
            }
        )

    @property
    def messages(self) -> list[Request]:
        return [request for request in self.requests if request.path != "/token"]

    def token_of(self, request: Request) -> str:
        return "" if request.path == "/token" else str(request.json["message"]["token"])

    def verify(self, request: Request) -> Response | None:
        if request.path == "/token":
            return self._token(request)
        assert request.path == "/v1/projects/shop/messages:send"
        assert request.headers["authorization"].startswith("Bearer access-")
        return None

    def accept(self, _: Request) -> Response:
        return Response(200, {}, json.dumps({"name": SENT}).encode())

    def _token(self, request: Request) -> Response:
        form = parse_qs(request.body.decode())
        assert form["grant_type"] == [fcm.GRANT]
        claims = jwt.decode(
            form["assertion"][0],
            self.key.public_key(),
            algorithms=["RS256"],
            audience=f"{self.url}/token",
        )
        assert (claims["iss"], claims["scope"]) == ("push@shop.test", fcm.SCOPE)
        self.tokens += 1
        body = {"access_token": f"access-{self.tokens}", "expires_in": 3599}
        return Response(self.token_status, {}, json.dumps(body).encode())


def apple_refuses(status: int, reason: str, **more: Any) -> Response:
    """An answer of APNs."""
    return Response(status, {}, json.dumps({"reason": reason, **more}).encode())


def google_refuses(status: int, code: str, headers: dict[str, str] | None = None) -> Response:
    """An answer of FCM."""
    kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
    details = [{"@type": kind, "errorCode": code}] if code else []
    body = {"error": {"code": status, "status": "SOME_STATUS", "details": details}}
    return Response(status, headers or {}, json.dumps(body).encode())
