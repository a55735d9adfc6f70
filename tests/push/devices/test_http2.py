"""The HTTP/2 client of the providers against a server that limits, refuses, hangs and breaks."""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from h2.settings import SettingCodes

from push.devices.jobs import NoAnswer
from push.devices.providers import http
from push.devices.providers.http import AddressRefused, HttpClient
from tests import PATIENCE

from .http2_server import Http2Server, Request, Response


class Recorder(Http2Server):
    """Accepts all, after the answers that a test has chosen."""

    def __init__(self, home) -> None:
        super().__init__(home, self._answer)
        self.answers: list[Response | None] = []

    def _answer(self, _: Request) -> Response | None:
        return self.answers.pop(0) if self.answers else Response(200)


@pytest.fixture(scope="module")
def running_server(tmp_path_factory) -> Iterator[Recorder]:
    with Recorder(tmp_path_factory.mktemp("http2")).running() as found:
        yield found


@pytest.fixture
def server(running_server, imgo) -> Recorder:
    running_server.requests.clear()
    running_server.answers.clear()
    running_server.h2_settings = {}
    running_server.requests_max = None
    imgo(NOTIFY_CA_FILE=str(running_server.ca_file), WEBPUSH_NETWORKS=["127.0.0.0/8", "::1/128"])
    return running_server


@pytest.fixture
async def client(server) -> AsyncIterator[HttpClient]:
    found = HttpClient(is_checked=True)
    yield found
    await found.close()


async def post_all(client: HttpClient, url: str, bodies: list[bytes]) -> list[int]:
    answers = await asyncio.gather(*(client.post(f"{url}/1?a=b", {}, body) for body in bodies))
    return [answer.status for answer in answers]


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {SettingCodes.MAX_CONCURRENT_STREAMS: 1},
        {SettingCodes.INITIAL_WINDOW_SIZE: 100, SettingCodes.MAX_CONCURRENT_STREAMS: 3},
    ],
)
async def test_requests_keep_to_the_limits_of_the_server(server, client, limits) -> None:
    """A body is larger than the window of its stream, and all are larger than the connection's."""
    server.h2_settings = limits
    await client.post(server.url, {}, b"")  # until its settings arrive, others may count
    bodies = [bytes([number]) * 4_000 for number in range(40)]
    assert await post_all(client, server.url, bodies) == [200] * len(bodies)
    first, *requests = server.requests
    assert sorted(request.body for request in requests) == bodies
    assert {request.path for request in requests} == {"/1?a=b"}
    assert {request.connection for request in requests} == {first.connection}


async def test_refused_stream_is_repeated_once(server, client) -> None:
    server.answers = [Response(resets=True)]
    assert await post_all(client, server.url, [b"1"]) == [200]
    server.answers = [Response(resets=True)] * 2
    with pytest.raises(NoAnswer, match="connection_broken"):
        await client.post(server.url, {}, b"2")


async def test_connection_that_was_silent_is_replaced(server, client) -> None:
    """A request that hangs while others are answered does not end their connection."""
    await client.post(server.url, {}, b"1")
    server.answers = [None, Response(200)]
    hanging = asyncio.create_task(client.post(server.url, {}, b"2"))
    await asyncio.to_thread(server.wait_for, 2)
    await client.post(server.url, {}, b"3")
    hanging.cancel()
    await asyncio.wait([hanging])
    await client.post(server.url, {}, b"4")
    server.answers = [None]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.post(server.url, {}, b"5")
    await client.post(server.url, {}, b"6")
    first, *others, last = (request.connection for request in server.requests)
    assert set(others) == {first} != {last}


async def test_requests_of_a_broken_connection_are_repeated_on_one_other(server, client) -> None:
    await client.post(server.url, {}, b"0")
    before = server.connections
    server.answers = [None, None, Response(breaks=True)]
    assert await post_all(client, server.url, [b"1", b"2", b"3"]) == [200] * 3
    assert server.connections == before + 1


@pytest.mark.parametrize("requests_max", [1, 7])
async def test_connection_that_goes_away_answers_what_it_accepted(
    server, client, requests_max
) -> None:
    """No request comes twice: the answers behind the GOAWAY are read, the others sent elsewhere."""
    bodies = [bytes([number]) for number in range(5 * requests_max)]
    server.requests_max = requests_max
    assert await post_all(client, server.url, bodies) == [200] * len(bodies)
    assert sorted(request.body for request in server.requests) == bodies
    numbers = Counter(request.connection for request in server.requests)
    assert set(numbers.values()) == {requests_max}


async def test_request_that_no_connection_takes_is_no_answer(server, client) -> None:
    server.requests_max = 0
    before = server.connections
    with pytest.raises(NoAnswer, match="connection_broken"):
        await client.post(server.url, {}, b"1")
    assert server.connections == before + http.CONNECTIONS_MAX
    assert server.requests == []


@pytest.fixture
async def addresses(monkeypatch) -> list[str]:
    """What every host resolves to, until a test changes it."""
    found = ["127.0.0.1"]

    async def resolve(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    return found


@pytest.mark.parametrize("is_checked", [True, False])
async def test_address_that_is_silent_leaves_time_for_the_next(
    server, addresses, monkeypatch, is_checked
) -> None:
    monkeypatch.setattr(http, "DIAL_MAX", 0.2)
    client = HttpClient(is_checked=is_checked)
    with socket.create_server(("127.0.0.2", server.port)):  # TLS never begins there
        addresses.insert(0, "127.0.0.2")
        async with asyncio.timeout(PATIENCE):
            assert (await client.post(server.url, {}, b"1")).status == 200
    await client.close()


async def test_server_that_has_moved_is_resolved_and_checked_again(
    server, addresses, client
) -> None:
    moved = Recorder(server.ca_file.parent)
    moved.host, moved.port = "127.0.0.2", server.port
    with moved.running():
        await client.post(server.url, {}, b"1")
        addresses[:] = ["127.0.0.2"]
        server.answers = [Response(breaks=True)]
        assert (await client.post(server.url, {}, b"2")).status == 200
        assert [request.body for request in moved.requests] == [b"2"]
        addresses[:] = ["127.0.0.2", "10.0.0.1"]
        moved.answers = [Response(breaks=True)]
        with pytest.raises(AddressRefused):
            await client.post(server.url, {}, b"3")


async def test_origins_without_requests_make_room(server, client, monkeypatch) -> None:
    monkeypatch.setattr(http, "ORIGINS_MAX", 1)
    await client.post(server.url, {}, b"1")
    await client.post(server.url.replace("localhost", "LOCALHOST"), {}, b"2")  # the same
    with pytest.raises(NoAnswer):
        await client.post("https://localhost:1/", {}, b"3")
    await client.post(server.url, {}, b"4")
    connections = [request.connection for request in server.requests]
    assert connections[0] == connections[1] != connections[2]


@contextlib.asynccontextmanager
async def serving(server: Recorder, protocols: list[str], answer: bytes) -> AsyncIterator[str]:
    """Serve something else than HTTP/2; yield the URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server.ca_file, server.ca_file.with_suffix(".key"))
    context.set_alpn_protocols(protocols)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if await reader.read(65_536):
                writer.write(answer)
                await writer.drain()
        writer.close()

    found = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with found:
        yield f"https://localhost:{found.sockets[0].getsockname()[1]}/"


async def test_server_without_http2_is_called_with_http1(server, client) -> None:
    async with serving(
        server, ["http/1.1"], b"HTTP/1.1 201 OK\r\nContent-Length: 2\r\n\r\nhi"
    ) as url:
        for _ in range(2):
            answer = await client.post(url, {"ttl": "1"}, b"1")
            assert (answer.status, answer.body) == (201, b"hi")


async def test_server_that_sends_something_else_is_no_answer(server, client) -> None:
    async with serving(server, ["h2"], b"220 mail.example.com ESMTP\r\n" * 9) as url:
        with pytest.raises(NoAnswer, match="connection_broken"):
            await client.post(url, {}, b"1")
