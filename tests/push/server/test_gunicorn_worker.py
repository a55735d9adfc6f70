"""The API's gunicorn worker: probes are answered while every thread is busy."""

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests import PATIENCE, fork_server, wait_until
from tests.services import free_port

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent.parent.parent
THREADS = 2
APP = """
import threading
opened, busy = threading.Event(), [0]

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        busy[0] += 1
        opened.wait(60)
    if path == "/read":
        environ["wsgi.input"].read()
    if path == "/healthz" and environ["QUERY_STRING"] == "open":
        opened.set()
    answer = str(busy[0]).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""


@pytest.fixture
def port(tmp_path) -> Iterator[int]:
    (tmp_path / "blocking.py").write_text(APP)
    number = free_port()
    options = ("--bind", f"127.0.0.1:{number}", "--threads", str(THREADS), "--no-control-socket")
    worker = (
        "--worker-class",
        "push.server.gunicorn_worker.Worker",
        "--pythonpath",
        f"{ROOT},{tmp_path}",
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = ["-m", "gunicorn", *worker, *options, "blocking:app"]
        process = fork_server.start(command, tmp_path, os.environ, stdout=out, stderr=out)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", number)) == 0

    try:
        wait_until(listens)
        yield number
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def get(port: int, path: str, timeout: float = PATIENCE) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_probe_is_answered_while_all_threads_wait(port):
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    kept.request("GET", "/healthz")
    assert kept.getresponse().read() == b"0"
    with ThreadPoolExecutor(2 * THREADS) as callers:
        stuck = [callers.submit(get, port, "/wait") for _ in range(2 * THREADS)]
        wait_until(lambda: get(port, "/healthz") == str(THREADS))
        for path in ("/readyz", "/below/healthz?verbose"):
            assert get(port, path) == str(THREADS)
        kept.request("GET", "/readyz")
        assert kept.getresponse().read() == str(THREADS).encode()
        assert not any(one.done() for one in stuck)
        get(port, "/healthz?open")
        assert len([one.result(PATIENCE) for one in stuck]) == 2 * THREADS
    kept.close()


def test_connection_that_sends_nothing_takes_no_thread(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(THREADS + 1)]
    assert get(port, "/other") == "0"
    silent[0].sendall(b"GET /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    silent[0].settimeout(PATIENCE)
    assert silent[0].recv(100).startswith(b"HTTP/1.1 200")
    for one in silent:
        one.close()


def open_socket(port: int, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(data)
    return connection


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setenv("IMGO_HANDSHAKE_TIMEOUT", "1")
    monkeypatch.setenv("IMGO_BODY_TIMEOUT", "1")


def test_unfinished_headers_take_no_thread_and_are_closed(quick, port):
    slow = [open_socket(port, b"GET / HTTP/1.1\r\nHost: a\r\n") for _ in range(3 * THREADS)]
    for piece in (b"X-A: b", b"c\r\n"):
        for one in slow:
            one.sendall(piece)
        assert get(port, "/") == "0"
    slow[0].sendall(b"\r\n")
    assert slow[0].recv(100).startswith(b"HTTP/1.1 200")
    slow[1].shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):  # what it sent was never read
        assert slow[1].recv(100) == b""  # within the socket's timeout
    for one in slow[2:]:
        assert one.recv(100).startswith(b"HTTP/1.1 408")
    for one in slow:
        one.close()


def test_small_body_takes_no_thread_before_it_is_complete(quick, port):
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n"
    slow = [open_socket(port, head + b"a" * 100) for _ in range(3 * THREADS)]
    began = time.monotonic()
    assert get(port, "/") == "0"
    assert time.monotonic() - began < 1  # before the deadline of the bodies
    slow[0].sendall(b"a" * 19_900)
    assert slow[0].recv(100).startswith(b"HTTP/1.1 200")
    for one in slow[1:]:
        assert one.recv(100).startswith(b"HTTP/1.1 408")
    for one in slow:
        one.close()


def test_announced_size_does_not_extend_the_deadline_of_a_body(quick, port):
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    slow = [open_socket(port, head + b"a") for _ in range(2 * THREADS)]
    began = time.monotonic()
    assert get(port, "/") == "0"
    assert time.monotonic() - began < 20  # 61 s for its size
    for one in slow:
        one.close()


def test_client_that_waits_for_100_continue_gets_it(quick, port):
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    connection = open_socket(port, head)
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(b"hello")
    assert b"HTTP/1.1 200" in connection.recv(1000)
    connection.close()


def test_body_that_never_ends_gives_its_thread_back(quick, port):
    head = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    slow = [open_socket(port, head) for _ in range(2 * THREADS)]
    assert get(port, "/") == "0"
    for one in slow:
        one.recv(1000)  # an end or an answer, within the socket's timeout
        one.close()


def test_request_in_pieces_and_pipelined_ones_are_answered(port):
    request = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    with open_socket(port, b"") as connection:
        for place in range(len(request)):
            connection.sendall(request[place : place + 1])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.sendall(request + request + b"GET / HT")
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 2:
            answers += connection.recv(1000)
        connection.sendall(b"TP/1.1\r\nHost: a\r\n\r\n")
        while answers.count(b"HTTP/1.1 200") < 3:
            answers += connection.recv(1000)
