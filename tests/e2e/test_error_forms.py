"""Malformed HTTP requests to a node: each path gets the errors of its own API, and no page."""

import json
import socket

import pytest

from .harness import HOST, System

LONG = "a" * 70_000


def ask(system: System, data: bytes) -> tuple[int, str, bytes]:
    """Send bytes and read until the end; return the status, content type and body."""
    with socket.create_connection((HOST, system.nodes[0].http_port), 30) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers["content-type"], body


@pytest.mark.parametrize(
    ("request_line", "header", "status"),
    [
        ("POST {} HTTP/1.1", "X-A: a\x01b", 400),
        ("POST {} HTTP/1.1", "X-A: a\x7fb", 400),
        ("POST {} HTTP/1.1", "X-A: a\x0cb", 400),
        ("POST {} HTTP/1.1", "X(A: b", 400),
        ("POST {} HTTP/1.1", "no colon", 400),
        ("POST {}?a=\xff HTTP/1.1", "X-A: b", 400),
        ("POST {}\xff HTTP/1.1", "X-A: b", 400),
        (f"POST {{}}{LONG} HTTP/1.1", "X-A: b", 414),
        (f"POST {{}}?{LONG} HTTP/1.1", "X-A: b", 414),
        ("POST {} HTTP/1.1", f"X-A: {LONG}", 431),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/pushes", "/1/push", "/goim/push/mids"])
def test_malformed_request_is_answered_in_the_form_of_its_path(
    embedded: System, path: str, request_line: str, header: str, status: int
) -> None:
    first = request_line.format(path)
    data = f"{first}\r\nHost: {HOST}\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode("latin1")
    answered, content_type, body = ask(embedded, data)
    assert answered == status
    value = json.loads(body)
    if path.startswith("/api/"):
        assert content_type == "application/problem+json"
        assert value["status"] == status
        assert value["detail"]
    else:
        assert value["ret" if path.startswith("/1/") else "code"]
