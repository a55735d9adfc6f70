"""TLS that ends in a plain Daphne: the same application under a server that knows nothing of it."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from imgo_client import AsyncPublisher, Client
from tests import PATIENCE, eventually

from .clients import AUTH, HEARTBEAT
from .harness import HOST, Embedded, Process, System, base_environment, free_ports, logs, manage
from .js_page import LIKE_NODE_20, Page

API_KEY = "an API key of the tests of TLS, and of no other"


def write_certificate(home: Path) -> tuple[Path, Path]:
    """A key and a certificate for localhost that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_file, certificate_file = home / "key.pem", home / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(certificate.public_bytes(pem))
    return key_file, certificate_file


class PlainDaphne(Process):
    """Daphne's own command, with TLS."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        (self.port,) = free_ports(1)
        key, self.certificate = write_certificate(home)
        where = f"ssl:{self.port}:interface={HOST}:privateKey={key}:certKey={self.certificate}"
        command = ["-m", "daphne", "-e", where, "imgo_site.asgi:application"]
        super().__init__(home, "daphne", command, environment)

    @property
    def trust(self) -> ssl.SSLContext:
        """Of its certificate alone."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def is_ready(self) -> bool:
        """Whether the health check says so."""
        try:
            answer = httpx.get(
                f"https://localhost:{self.port}/healthz", verify=self.trust, trust_env=False
            )
        except httpx.TransportError:
            return False
        return answer.status_code == 200


@pytest.fixture
def daphne(tmp_path: Path, sqlite_template: Path) -> Iterator[PlainDaphne]:
    home = Embedded(tmp_path / "installation", sqlite_template).home
    logs.forbid(API_KEY)
    settings = {"IMGO_DATA_DIR": str(home / "data"), "IMGO_API_KEY": API_KEY}
    process = PlainDaphne(tmp_path, {**base_environment(), **settings})
    process.start()
    yield process
    process.kill()  # Daphne's command waits for open connections


async def test_a_session_over_tls_gets_what_is_pushed(daphne: PlainDaphne) -> None:
    token = manage(daphne.environment, "token", "u1")
    logs.forbid(token)
    body = {"to": {"key": "u1"}, "body": "x" * 50_000}
    base = f"localhost:{daphne.port}"
    async with httpx.AsyncClient(verify=daphne.trust, trust_env=False) as http:
        headers = {"Authorization": f"Api-Key {API_KEY}"}
        pushes = f"https://{base}/api/v1/pushes"
        missed = await http.post(pushes, json={**body, "body": "missed"}, headers=headers)
        async with websockets.connect(f"wss://{base}/sub", ssl=daphne.trust, proxy=None) as client:
            await client.send(json.dumps({"ver": 1, "op": AUTH, "seq": 1, "body": token}))
            received = [json.loads(await client.recv())[0] for _ in range(2)]
            assert [frame["body"] for frame in received] == [{}, "missed"]
            answer = await http.post(pushes, json=body, headers=headers)
            assert (missed.status_code, answer.status_code) == (202, 202)
            assert json.loads(await client.recv())[0]["body"] == body["body"]
            await client.send(json.dumps({"ver": 1, "op": HEARTBEAT, "seq": 2}))
            assert json.loads(await client.recv())[0]["seq"] == 2


async def test_the_javascript_client_on_node_20_gets_what_is_pushed(
    daphne: PlainDaphne, tmp_path: Path
) -> None:
    token = manage(daphne.environment, "token", "u1")
    logs.forbid(token)
    base = f"localhost:{daphne.port}"
    page = Page(f"https://{base}/sub", tmp_path / "tab", LIKE_NODE_20, token=token)
    page.environment["NODE_EXTRA_CA_CERTS"] = str(daphne.certificate)
    async with page, httpx.AsyncClient(verify=daphne.trust, trust_env=False) as http:
        await page.wait_for("open")
        headers = {"Authorization": f"Api-Key {API_KEY}"}
        push = {"to": {"key": "u1"}, "body": "x" * 50_000}
        await http.post(f"https://{base}/api/v1/pushes", json=push, headers=headers)
        await eventually(lambda: page.shown == [push["body"]])


async def test_the_javascript_client_on_node_20_trusts_no_certificate_by_chance(
    daphne: PlainDaphne, tmp_path: Path
) -> None:
    url = f"wss://localhost:{daphne.port}/sub"
    async with Page(url, tmp_path / "tab", LIKE_NODE_20, token="wrong") as page:
        await eventually(page.closes)
        assert page.closes()[0] == [1006, True]


async def test_the_python_client_and_publisher_over_tls(daphne: PlainDaphne) -> None:
    token = manage(daphne.environment, "token", "u1")
    logs.forbid(token)
    base = f"localhost:{daphne.port}"
    options = {"verify": daphne.trust, "trust_env": False}
    async with AsyncPublisher(f"https://{base}", API_KEY, **options) as publisher:
        pushed = await publisher.push("over TLS", key="u1")
    stranger = Client(f"wss://{base}/sub", token, backoff=(0.01, 0.01))
    errors: list[Exception] = []
    stranger.on("error", errors.append)
    async with stranger:  # which does not know the certificate
        await eventually(lambda: len(errors) > 1)
    assert {type(error) for error in errors} == {ssl.SSLCertVerificationError}
    async with Client(f"wss://{base}/sub", token, tls=daphne.trust) as client:
        message = await anext(aiter(client))
        assert (message.id, message.body) == (pushed.id, "over TLS")


async def test_the_python_client_over_tcp_with_tls(tmp_path: Path, embedded: System) -> None:
    key, certificate = write_certificate(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    token = manage(embedded.environment, "token", "over TCP")
    logs.forbid(token)

    ends: list[asyncio.Task[Any] | None] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As a load balancer does that ends TLS."""
        ends.append(asyncio.current_task())
        inside, outside = await asyncio.open_connection(HOST, embedded.nodes[0].tcp_port)
        await asyncio.gather(carry(reader, outside), carry(inside, writer))

    async with await asyncio.start_server(forward, HOST, 0, ssl=serving) as server:
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cafile=str(certificate))
        async with Client(f"tcps://localhost:{port}", token, tls=trust) as client:
            await eventually(lambda: client.state == "open")
            assert await client.request("any") == {}
        await asyncio.wait_for(asyncio.gather(*ends), PATIENCE)
