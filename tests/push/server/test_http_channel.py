"""A node's HTTP connection: what it refuses, when it ends, and which bodies it keeps."""

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from imgo_site.errors import NotAuthenticated
from imgo_site.names import REQUEST_LINE_MAX
from push.api.problems import error_response_at
from push.metrics import definitions as metrics
from push.server import http_body_limits
from push.server.early_authorization import EarlyAuthorization
from push.server.http_body_limits import Bodies
from push.server.http_channel import CLOSE_TIMEOUT, Channel
from push.server.http_request import NodeRequest
from push.session.unauthenticated_connections import UnauthenticatedConnections

PUSHES = "/api/v1/pushes"
KILO = 1_024


class Transport(StringTransport):
    """A connection that notes that its sending side was closed."""

    is_write_closed = False

    def loseWriteConnection(self) -> None:  # noqa: N802 - Twisted's
        self.is_write_closed = True


class Gate(EarlyAuthorization):
    """Callers whose authorization a test decides."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def ask(self, match: Any, request: Any, method: bytes, target: bytes, decided: Any) -> None:
        self.asked.append(decided)


class Served(NodeRequest):
    """A request that is kept instead of answered."""

    def process(self) -> None:
        self.channel.factory.served.append((self.uri, self.content.read()))


class Connection:
    """One connection of a node."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.clock = Clock()
        self.served: list[tuple[bytes, bytes]] = []
        self.transport = Transport()
        self.channel = Channel()
        self.channel.factory = SimpleNamespace(server=server, served=self.served)
        self.channel.requestFactory = Served
        self.channel.callLater = self.clock.callLater
        self.channel.timeOut = 10.0
        self.channel.makeConnection(self.transport)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.channel.dataReceived(part)

    def post(self, size: int | None, path: str = PUSHES) -> None:
        """Send the headers of a POST. `size`: bytes that it announces; None for chunks."""
        length = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
        self.send(f"POST {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n".encode())

    def chunk(self, size: int) -> None:
        self.send(b"%x\r\n" % size, b"x" * size + b"\r\n")

    def lose(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))

    @property
    def status(self) -> int:
        """Status of the response, 0 without one."""
        start = self.transport.value().split(b" ", 2)
        return int(start[1]) if len(start) > 1 else 0

    @property
    def is_read(self) -> bool:
        return self.transport.producerState == "producing"


@pytest.fixture
def server():
    def ignore(_: object) -> None:
        """Daphne's server keeps a table of its requests."""

    return SimpleNamespace(
        unauthenticated=UnauthenticatedConnections(),
        bodies=Bodies(Gate()),
        protocol_connected=ignore,
        protocol_disconnected=ignore,
    )


@pytest.fixture
def connect(server):
    """Opens a connection; all are closed at the end, when no byte of a body may be held."""
    connections = []

    def open_one() -> Connection:
        connections.append(Connection(server))
        return connections[-1]

    yield open_one
    for connection in connections:
        connection.lose()
    assert (server.bodies.held, server.bodies.unasked, len(server.unauthenticated)) == (0, 0, 0)


@pytest.fixture
def connection(connect):
    return connect()


def assert_refused(connection: Connection, status: int) -> None:
    """The request has one answer, the last; what comes then is not read; then it is closed."""
    assert connection.status == status
    assert b"\r\nConnection: close\r\n" in connection.transport.value()
    assert connection.transport.is_write_closed
    written = connection.transport.value()
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.transport.value() == written
    assert connection.served == []
    assert not connection.transport.disconnecting
    connection.clock.advance(CLOSE_TIMEOUT)
    assert connection.transport.disconnected


# The first line and the headers


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * REQUEST_LINE_MAX, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * REQUEST_LINE_MAX, 431),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"a" * (REQUEST_LINE_MAX // 2) + b"\r\n") * 5, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        (b"GET /\r\n", 400),
        (b"GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
    ids=["line", "header", "headers", "number", "length", "words", "target", "host"],
)
def test_too_large_or_malformed_head_is_refused_with_its_status(connection, request_, status):
    connection.send(request_)
    assert_refused(connection, status)


def test_refusal_has_the_form_of_the_path(connect):
    for path, form in ((b"/api/v1/pushes", b"application/problem+json"), (b"/", b"text/")):
        connection = connect()
        connection.send(b"GET " + path + b" HTTP/1.1\r\n\r\n")
        assert b"\r\nContent-Type: " + form in connection.transport.value()


def test_head_of_many_bytes_within_the_limits_is_served(connection):
    headers = b"".join(b"A%d: a\r\n" % number for number in range(99))
    connection.send(b"GET /a HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
    assert connection.served == [(b"/a", b"")]


# Proxies


@pytest.fixture
def proxied(imgo, connect):
    """A connection of a proxy that sends the PROXY protocol."""
    imgo(PROXY_PROTOCOL=["http"], TRUSTED_PROXIES=["192.168.1.1"])
    return connect()


def test_address_of_the_client_is_that_of_the_proxy_header_in_parts(proxied):
    proxied.send(b"PROXY TCP4 203.0.113.7 ", b"127.0.0.1 4711 80\r\nGET /a HTTP/1.1\r\n")
    proxied.send(b"Host: a\r\n\r\n")
    peer = proxied.channel.getPeer()
    assert (peer.host, peer.port) == ("203.0.113.7", 4711)
    assert proxied.served == [(b"/a", b"")]


def test_connection_of_a_proxy_without_its_header_is_closed(proxied, caplog):
    before = metrics.CLOSES.labels("proxy_header")._value.get()
    proxied.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert proxied.transport.disconnected
    assert proxied.transport.value() == b""
    assert proxied.served == []
    assert metrics.CLOSES.labels("proxy_header")._value.get() == before + 1
    assert "a connection of the proxy 192.168.1.1 was closed" in caplog.text


# Bodies


def test_small_body_is_served_without_asking_for_its_caller(connection, server):
    connection.post(5)
    connection.send(b"abc")
    assert (server.bodies.held, server.bodies.unasked) == (3, 3)
    connection.send(b"de")
    assert connection.served == [(PUSHES.encode(), b"abcde")]
    assert server.bodies.gate.asked == []


@pytest.mark.parametrize(("path", "limit"), [(PUSHES, 100 * KILO), ("/none", 8 * KILO)])
def test_announced_body_above_the_limit_is_refused_at_once(imgo, connection, path, limit):
    imgo(MAX_REQUEST=100 * KILO)
    connection.post(limit + 1, path)
    assert_refused(connection, 413)


def test_chunked_body_is_refused_when_it_is_above_the_limit(connection, server):
    connection.post(None, "/none")
    connection.chunk(8 * KILO)
    assert connection.status == 0
    connection.chunk(1)
    assert server.bodies.held == 0
    assert_refused(connection, 413)


def test_large_body_is_read_only_after_its_caller_was_allowed(connection, server):
    size = 64 * KILO + 1
    connection.post(size)
    (decided,) = server.bodies.gate.asked
    assert not connection.is_read
    connection.send(b"x" * 10)  # that were on their way
    decided(None)
    assert connection.is_read
    assert (server.bodies.held, server.bodies.unasked) == (10, 0)
    connection.send(b"x" * (size - 10))
    assert connection.served == [(PUSHES.encode(), b"x" * size)]
    assert len(server.bodies.gate.asked) == 1


def test_complete_body_is_served_when_its_caller_is_allowed(connection, server):
    size = 64 * KILO + 1
    connection.post(size)
    connection.send(b"x" * size)
    assert connection.served == []
    server.bodies.gate.asked[0](None)
    assert connection.served == [(PUSHES.encode(), b"x" * size)]


def test_caller_that_is_not_allowed_gets_the_refusal_of_the_view(connection, server):
    connection.post(64 * KILO + 1)
    connection.send(b"x" * 10)
    server.bodies.gate.asked[0](error_response_at(PUSHES, NotAuthenticated("no key")))
    assert server.bodies.held == 0
    assert_refused(connection, 401)


@pytest.mark.parametrize("is_allowed", [True, False])
def test_decision_after_the_client_has_left_changes_nothing(connect, server, is_allowed):
    connection = connect()
    connection.post(64 * KILO + 1)
    connection.send(b"x" * 10)
    connection.lose()
    server.bodies.gate.asked[0](
        None if is_allowed else error_response_at(PUSHES, NotAuthenticated("no key"))
    )
    assert (server.bodies.held, server.bodies.unasked) == (0, 0)
    assert not connection.is_read
    assert connection.transport.value() == b""


def test_chunked_body_needs_its_caller_above_the_size_for_anyone(connection, server):
    connection.post(None)
    connection.chunk(64 * KILO)
    assert server.bodies.gate.asked == []
    connection.chunk(1)
    assert not connection.is_read
    connection.chunk(1)  # it is asked for once
    assert len(server.bodies.gate.asked) == 1


def test_small_body_needs_its_caller_while_the_share_is_full(imgo, connect, server):
    imgo(MAX_BODIES=4 * KILO)
    first, second, stray = connect(), connect(), connect()
    first.post(KILO + 1)
    first.send(b"x" * KILO)
    assert server.bodies.gate.asked == []
    second.post(10)
    second.send(b"x")
    assert len(server.bodies.gate.asked) == 1
    assert not second.is_read
    stray.post(10, "/none")  # no caller can be authorized for it
    stray.send(b"x")
    assert_refused(stray, 503)
    server.bodies.gate.asked[0](None)
    second.send(b"x" * 9)
    assert second.served == [(PUSHES.encode(), b"x" * 10)]


def test_bodies_above_the_limit_of_the_node_are_refused_until_one_ends(imgo, connect, server):
    imgo(MAX_BODIES=100 * KILO)
    first, second, third = connect(), connect(), connect()
    size = 99 * KILO
    for connection in (first, second):
        connection.post(size)
        server.bodies.gate.asked.pop()(None)
    first.send(b"x" * (size - 1))
    second.send(b"x" * (2 * KILO))
    assert_refused(second, 503)
    assert server.bodies.held == size - 1
    first.lose()
    third.post(2)
    third.send(b"xx")
    assert third.served == [(PUSHES.encode(), b"xx")]


# Deadlines


def test_idle_connection_is_closed_without_an_answer(connection):
    connection.clock.advance(10.0)
    assert connection.transport.disconnecting
    assert connection.transport.value() == b""


def test_bytes_of_a_head_do_not_move_its_deadline(connection):
    connection.send(b"GET / HTTP/1.1\r\n")
    connection.clock.advance(9.0)
    connection.send(b"Host: a\r\n")
    connection.clock.advance(1.0)
    assert_refused(connection, 408)


def test_body_that_does_not_arrive_in_its_time_is_refused(imgo, connection, monkeypatch):
    imgo(BODY_TIMEOUT=5.0, BODY_RATE=1_000)
    now = [100.0]
    monkeypatch.setattr(http_body_limits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    connection.post(4_000)
    connection.send(b"x" * 2_000)
    now[0] += 5.0
    connection.clock.advance(5.0)  # 2,000 bytes have two seconds more
    assert connection.status == 0
    now[0] += 2.0
    connection.clock.advance(2.0)
    assert_refused(connection, 408)


def test_time_of_a_body_does_not_run_while_its_caller_is_authorized(
    imgo, connection, server, monkeypatch
):
    imgo(BODY_TIMEOUT=5.0)
    now = [100.0]
    monkeypatch.setattr(http_body_limits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    connection.post(64 * KILO + 1)
    for _ in range(3):
        now[0] += 5.0
        connection.clock.advance(5.0)
    assert connection.status == 0
    server.bodies.gate.asked[0](None)
    now[0] += 4.9
    connection.clock.advance(4.9)
    assert connection.status == 0
    now[0] += 0.2
    connection.clock.pump([0.1, 0.1])
    assert_refused(connection, 408)


def test_connection_that_is_evicted_is_closed_at_once(connection):
    connection.channel.evict()
    assert connection.transport.disconnected
