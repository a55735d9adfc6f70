"""An HTTP/2 server over TLS, whose answers a test chooses; and certificates for it."""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings

from tests import PATIENCE

# Without the id of the last stream and the error's code (RFC 9113, section 6.8).
GOAWAY = (8).to_bytes(3) + bytes([7, 0, 0, 0, 0, 0])


@dataclass
class Request:
    """A request that has arrived.

    `connection`: number of the connection it came on. `at`: monotonic seconds.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Response:
    """An answer. `breaks`: the connection ends instead. `resets`: the stream does."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    breaks: bool = False
    resets: bool = False


# Returns None for a request that is never answered.
Answer = Callable[[Request], Response | None]


def make_certificate(home: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost; return the files of the certificate and its key.

    Servers with one home have one certificate.
    """
    cert_file, key_file = home / "localhost.pem", home / "localhost.key"
    if cert_file.exists():
        return cert_file, key_file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_file, key_file


class Http2Server:
    """Server on a thread of its own, so that tests with and without a loop can use it.

    `host`: the address that it listens at. `requests`: those that have arrived. `answer` may be
    replaced at any time. `h2_settings`: of new connections. `requests_max`: after so many requests,
    a connection says that it goes away, and answers these; None for no limit.
    """

    def __init__(self, home: Path, answer: Answer) -> None:
        self.answer = answer
        self.host = "127.0.0.1"
        self.requests: list[Request] = []
        self.connections = 0
        self.h2_settings: dict[SettingCodes, int] = {}
        self.requests_max: int | None = None
        self.ca_file, key_file = make_certificate(home)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.ca_file, key_file)
        self._context.set_alpn_protocols(["h2"])
        self._arrived = threading.Condition()
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Http2Server"]:
        """Serve until the block ends."""
        loop = asyncio.new_event_loop()
        ready, stopping = threading.Event(), asyncio.Event()

        async def serve() -> None:
            server = await asyncio.start_server(
                self._serve, self.host, self.port, ssl=self._context
            )
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await stopping.wait()
            server.close()
            # Also those in their handshake: the end of the loop would leave their sockets open.
            for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
                transport.abort()
            await asyncio.sleep(0)

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join(PATIENCE)

    def wait_for(self, count: int) -> list[Request]:
        """Return the requests, once there are `count` of them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.requests) >= count, PATIENCE), (
                f"{len(self.requests)} of {count} requests arrived"
            )
            return list(self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = _Connection(self, self.connections, writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(65_536):
                if not connection.receive(data):
                    break
        writer.close()

    def take(self, request: Request) -> Response | None:
        answer = self.answer(request)
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        return answer


class _Connection:
    def __init__(self, server: Http2Server, number: int, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._number = number
        self._writer = writer
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        if server.h2_settings:
            self._h2.local_settings = Settings(client=False, initial_values=server.h2_settings)
        self._h2.initiate_connection()
        self._headers: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._accepted = 0
        self._goes_away = False
        self._flush()
        self._go_away_after(0)

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    def receive(self, data: bytes) -> bool:
        """Handle bytes; return whether the connection goes on."""
        for event in self._h2.receive_data(data):
            stream = getattr(event, "stream_id", 0)
            if isinstance(event, h2.events.RequestReceived):
                self._headers[stream], self._bodies[stream] = dict(event.headers), bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[stream] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, h2.events.StreamEnded) and not self._goes_away:
                self._accepted += 1
                self._go_away_after(stream)
                if not self._answer(stream):
                    return False
        self._flush()
        return True

    def _go_away_after(self, stream: int) -> None:
        """Send GOAWAY if no stream is accepted after this one. Its answer comes behind that."""
        if self._accepted == self._server.requests_max:
            self._goes_away = True
            # By hand, because h2 sends nothing after a GOAWAY.
            self._flush()
            self._writer.write(GOAWAY + stream.to_bytes(4) + bytes(4))  # without an error

    def _answer(self, stream: int) -> bool:
        headers = self._headers.pop(stream)
        method, path = headers.pop(":method"), headers.pop(":path")
        body = bytes(self._bodies.pop(stream))
        found = self._server.take(Request(method, path, headers, body, self._number))
        if found is None:
            return True
        if found.breaks:
            return False
        if found.resets:
            self._h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return True
        fields = [(":status", str(found.status)), *found.headers.items()]
        self._h2.send_headers(stream, fields, end_stream=not found.body)
        size = self._h2.max_outbound_frame_size
        for start in range(0, len(found.body), size):
            part = found.body[start : start + size]
            self._h2.send_data(stream, part, end_stream=start + size >= len(found.body))
        return True
