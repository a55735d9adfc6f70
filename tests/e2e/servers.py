"""Other ASGI servers than ours with the same application: sessions stay with them."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import NO_TLS

from .harness import HOST, Embedded, Environment, Node

APPLICATION = "imgo_site.asgi:application"


def write_certificate(home: Path) -> tuple[Path, Path]:
    """A key and a certificate for this host that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address(HOST))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_file, certificate_file = home / "key.pem", home / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(certificate.public_bytes(pem))
    return key_file, certificate_file


class OtherNode(Node):
    """A node under another server: HTTP and WebSocket on one port, and no raw TCP."""

    def __init__(self, home: Path, environment: Environment) -> None:
        super().__init__(home, type(self).__name__.lower(), environment)
        self.ws_port = self.http_port
        self._command = self._server(home)

    def _server(self, home: Path) -> Sequence[str]:
        """The command that starts it."""
        raise NotImplementedError


class Uvicorn(OtherNode):
    """uvicorn's own command."""

    def _server(self, home: Path) -> Sequence[str]:
        where = ("--host", HOST, "--port", str(self.http_port))
        return ["-m", "uvicorn", *where, "--log-level", "warning", APPLICATION]


class Daphne(OtherNode):
    """Daphne's own command, with TLS."""

    def _server(self, home: Path) -> Sequence[str]:
        key, self.certificate = write_certificate(home)
        self.tls = ssl.create_default_context(cafile=str(self.certificate))
        self.url = self.url.replace("http:", "https:")
        where = f"ssl:{self.http_port}:interface={HOST}:privateKey={key}"
        return ["-m", "daphne", "-e", f"{where}:certKey={self.certificate}", APPLICATION]

    def is_ready(self) -> bool:
        """Whether the health check says so."""
        try:
            answer = httpx.get(f"{self.url}/healthz", verify=self.tls or NO_TLS, trust_env=False)
        except httpx.TransportError:
            return False
        return answer.status_code == 200


class Other(Embedded):
    """One node with SQLite under another server. It is killed: some wait for their clients."""

    def __init__(self, home: Path, template: Path, server: type[OtherNode], **settings: str):
        super().__init__(home, template, **settings)
        self.nodes = [server(home, self.environment)]
        self.processes = [*self.nodes]

    def stop(self) -> None:
        """End it at once."""
        for process in self.processes:
            process.kill()
