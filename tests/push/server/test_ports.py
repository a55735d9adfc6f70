"""Where a node listens, for whatever HOST says."""

import socket
from contextlib import ExitStack

import pytest

from push.server import node_processes as processes
from push.server import ports
from push.server.node_processes import PortTaken
from tests.services import free_port


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("::", {"127.0.0.1", "::1"}),
        ("[::]", {"127.0.0.1", "::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("[::1]", {"::1"}),
    ],
)
def test_listen_reaches_what_host_says(imgo, host, reached, shared):
    imgo(HOST=host)
    port = free_port()
    with ExitStack() as opened:
        if shared:
            opened.enter_context(ports.held(port))
        for sock in ports.listen(port, shared=shared):
            opened.enter_context(sock)
        assert {address for address in ("127.0.0.1", "::1") if reaches(address, port)} == reached


def test_listen_on_a_name_is_at_each_of_its_addresses(imgo):
    imgo(HOST="localhost")
    port = free_port()
    with ExitStack() as opened:
        for sock in ports.listen(port, shared=False):
            opened.enter_context(sock)
        assert reaches("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_listeners_are_those_at_our_own_address(imgo, host):
    port = free_port()
    imgo(HOST=host, HTTP_PORT=port)
    with ExitStack() as opened:
        counts = [ports.listeners([host])]
        for _ in range(2):
            (sock,) = ports.listen(port, shared=True)
            opened.enter_context(sock)
            counts.append(ports.listeners([host]))
        # Bound, and a connection: neither listens. Another address: somebody else's.
        opened.enter_context(socket.create_connection((host, port), 5))
        opened.enter_context(socket.create_server(("127.0.0.1", free_port())))
        if host in {"127.0.0.1", "::1"}:
            opened.enter_context(socket.create_server(("127.0.0.2", port)))
        counts.append(ports.listeners([host]))
    assert counts == [0, 1, 2, 2]
    assert ports.listeners([host]) == 0


def test_listen_on_a_port_that_is_taken_raises(imgo):
    imgo(HOST="127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            ports.listen(port, shared=False)
        with pytest.raises(OSError, match="in use"), ports.held(port):
            pass


def test_address_and_host_are_written_plainly():
    assert ports.plain_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert ports.plain_address("2001:db8::ffff:1") == "2001:db8::ffff:1"
    assert ports.in_url("::1") == "[::1]"
    assert ports.in_url("[::1]") == "[::1]"
    assert ports.in_url("localhost") == "localhost"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70, "192.0.2.1"])
def test_a_host_that_is_not_here_is_what_is_to_blame(imgo, host):
    imgo(HOST=host)
    with pytest.raises(OSError, match=r".") as error:
        ports.listen(free_port(), shared=False)
    assert ports.reason(error.value, "IMGO_HTTP_PORT").endswith(f" (IMGO_HOST='{host}')")
    ready: list[None] = []
    with pytest.raises(PortTaken, match=rf"\(IMGO_HOST='{host}'\)"):
        processes.run(2, lambda: ready.append(None))
    assert ready == []


def test_a_port_that_is_taken_is_what_is_to_blame(imgo):
    imgo(HOST="127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as error:
            ports.listen(port, shared=False)
    assert ports.reason(error.value, "IMGO_WS_PORT").endswith(" (IMGO_WS_PORT)")
