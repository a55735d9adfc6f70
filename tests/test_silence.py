"""The proxy that delays, silences and cuts the links to a service."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests import wait_until
from tests.silence import FROM_SERVICE, Proxy

pytestmark = pytest.mark.services


@contextlib.contextmanager
def echo_service() -> Iterator[int]:
    """A service that answers with what it is sent; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(sock: socket.socket) -> None:
            with sock, contextlib.suppress(OSError):
                while data := sock.recv(4096):
                    sock.sendall(data)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echo_service() as port, Proxy("127.0.0.1", port) as found:
        yield found


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        yield sock


def is_silent(sock: socket.socket) -> bool:
    sock.settimeout(0.2)
    try:
        return not sock.recv(100)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(10)


def test_proxy_silenced_keeps_bytes_until_restored(proxy, client):
    proxy.silence()
    client.sendall(b"one")
    assert is_silent(client)
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as late:
        late.sendall(b"late")
        assert is_silent(late)
        proxy.restore()
        assert client.recv(100) == b"one"
        assert late.recv(100) == b"late"


def test_proxy_silenced_one_way_passes_the_other(proxy, client):
    with proxy.silent(FROM_SERVICE):
        client.sendall(b"one")
        wait_until(lambda: proxy.links[0].passed["to the service"] == 8)
        assert is_silent(client)
    assert client.recv(100) == b"one"


def test_link_silenced_leaves_other_links_alone(proxy, client):
    proxy.links[0].silence()
    client.sendall(b"one")
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as other:
        other.sendall(b"two")
        assert other.recv(100) == b"two"
    assert is_silent(client)
    proxy.links[0].restore()
    assert client.recv(100) == b"one"


def test_proxy_cut_resets_links_and_takes_new_ones(proxy, client):
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    wait_until(lambda: not proxy.links)
    with socket.create_connection(("127.0.0.1", proxy.port), 10) as other:
        other.sendall(b"two")
        assert other.recv(100) == b"two"


def test_proxy_refusing_resets_new_links(proxy):
    proxy.refuse()

    def read_new() -> bytes:
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as sock:
            return sock.recv(100)

    with pytest.raises(ConnectionResetError):  # from either
        read_new()


def test_proxy_delays_bytes_both_ways(proxy, client):
    proxy.delay = 0.1
    begin = time.monotonic()
    client.sendall(b"one")
    assert client.recv(100) == b"one"
    assert time.monotonic() - begin >= 0.2


def test_proxy_url_keeps_login_and_path_of_the_service():
    proxy = Proxy.to_url("postgres://user:word@127.0.0.1:5432/imgo?x=1")
    proxy.port = 99
    assert proxy.url == "postgres://user:word@127.0.0.1:99/imgo?x=1"
    assert proxy.upstream == ("127.0.0.1", 5432)
