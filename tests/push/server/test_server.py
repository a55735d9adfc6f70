"""The server's listeners: shared ports while drained, ports that are taken, links that fail."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from imgo_site.conf import conf
from push.server import ports
from push.server.server import ImgoServer
from push.session.link_manager import LinkManager
from tests.services import free_port


async def fail(*_: Any) -> None:
    raise RuntimeError("the application has failed")


@pytest.fixture
async def server(imgo):
    """A server that listens on ports that it shares; nothing of it is started."""
    imgo(HOST="127.0.0.1", HTTP_PORT=free_port(), WS_PORT=0, TCP_PORT=free_port(), REUSE_PORT=True)
    one = ImgoServer(fail, lambda: None)
    one.loop = asyncio.get_running_loop()
    one.manager = LinkManager(one.loop)
    one.http_factory = None
    one._listen_http()
    one._listen_tcp()
    yield one
    one._stop_listening()
    one.manager.close()
    one.gate.close()


@pytest.fixture
def other():
    """Another node's listener on the same HTTP port."""
    sockets: list[socket.socket] = []

    def listen() -> socket.socket:
        sockets.extend(ports.listen(conf.HTTP_PORT, shared=True))
        return sockets[-1]

    yield listen
    for sock in sockets:
        sock.close()


def listens(server: ImgoServer) -> tuple[bool, bool]:
    """Whether the server listens for HTTP, and for raw TCP."""
    return bool(server._http_listeners), server._listener is not None


def listeners() -> int:
    """Number of sockets that listen on the HTTP port."""
    return ports.listeners(["127.0.0.1"])


async def test_drained_server_listens_until_another_does(server, other):
    server._share_ports(is_drained=True)
    assert (listens(server), listeners()) == ((True, True), 1)
    other()
    server._share_ports(is_drained=True)
    assert (listens(server), listeners()) == ((False, False), 1)


async def test_drained_server_listens_again_when_no_other_does(server, other):
    another = other()
    server._share_ports(is_drained=True)
    server._share_ports(is_drained=True)
    assert (listens(server), listeners()) == ((False, False), 1)
    another.close()
    server._share_ports(is_drained=True)
    assert (listens(server), listeners()) == ((True, True), 1)


async def test_server_that_is_drained_no_more_listens_beside_others(server, other):
    other()
    server._share_ports(is_drained=True)
    server._share_ports(is_drained=False)
    assert (listens(server), listeners()) == ((True, True), 2)
    server._share_ports(is_drained=False)  # once
    assert listeners() == 2


async def test_server_that_stops_does_not_listen_again(server):
    server._stop_listening()
    server._is_stopping = True
    server._share_ports(is_drained=False)
    assert (listens(server), listeners()) == ((False, False), 0)


async def test_drained_server_listens_while_others_cannot_be_counted(
    server, other, monkeypatch, caplog
):
    other()

    def count(hosts: list[str]) -> int:
        raise OSError("Too many open files")

    monkeypatch.setattr(ports, "listeners", count)
    server._share_ports(is_drained=True)
    assert listens(server) == (True, True)
    assert "could not count the other listeners of HTTP_PORT: Too many open files" in caplog.text


async def test_node_is_drained_after_its_ports_are_left_to_others(server, other):
    calls = []

    async def drain() -> None:
        calls.append(("drain", listens(server)))

    async def undrain() -> None:
        calls.append(("undrain", listens(server)))

    node: Any = SimpleNamespace(drain_on_order=drain, undrain=undrain, is_draining=False)
    other()
    await server._drain_shared(node)
    await server._undrain_shared(node)
    assert calls == [("drain", (False, False)), ("undrain", (False, False))]
    assert listens(server) == (True, True)


async def test_port_that_is_taken_stops_the_server_with_the_setting(server, imgo, monkeypatch):
    stops = []
    monkeypatch.setattr(server, "stop", lambda: stops.append(server.failure))
    imgo(REUSE_PORT=False)
    server._listen_http()
    (reason,) = stops
    assert reason.startswith("Address already in use")
    assert reason.endswith("(IMGO_HTTP_PORT, IMGO_WS_PORT)")
    server._fail("another")
    assert stops == [reason, reason]  # the first is the reason


async def test_link_whose_application_fails_is_closed(server):
    lost = []
    link: Any = SimpleNamespace(lose=lambda: lost.append(True), receive=None, send=None)
    with pytest.raises(RuntimeError):
        await server._serve_link({}, link)
    assert lost == [True]
