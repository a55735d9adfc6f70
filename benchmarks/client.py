"""Clients of the HTTP API: one that is easy to use, and two that cost the machine little."""

import http.client
import json
import re
import socket
import threading
from typing import Any

from benchmarks.servers import API_KEY, HOST

HEADERS = {"Authorization": f"Api-Key {API_KEY}", "Content-Type": "application/json"}
PUSHES = "/api/v1/pushes"
STREAM = "/api/v1/pushes/stream"
TIMEOUT = 60.0  # seconds
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Refused(RuntimeError):
    """The API did not accept what it has to accept."""


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)

    def push(self, pushes: Any) -> Any:
        """Push one object or an array; the answer. Raises `Refused`."""
        self._connection.request("POST", PUSHES, json.dumps(pushes), HEADERS)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 202:
            raise Refused(f"a push was answered {answer.status}: {data[:300]!r}")
        return json.loads(data)

    def get(self, path: str) -> Any:
        """The JSON of a path. Raises `Refused`."""
        self._connection.request("GET", path, headers=HEADERS)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise Refused(f"{path} was answered {answer.status}: {data[:300]!r}")
        return json.loads(data)

    def close(self) -> None:
        self._connection.close()


def _head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", *headers]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def request(body: bytes) -> bytes:
    """A whole request that pushes `body`."""
    return _head(PUSHES, f"Content-Length: {len(body)}") + body


class RawClient:
    """One keep-alive connection that sends requests made beforehand and looks at the status."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection((HOST, port), timeout=TIMEOUT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> bytes:
        """Send a request and read its answer; returns the body. Raises `Refused`."""
        self._sock.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._read()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 202") or length is None:
            raise Refused(f"a push was answered {head[:60]!r} {body[:200]!r}")
        while len(body) < int(length[1]):
            body += self._read()
        return body

    def _read(self) -> bytes:
        data = self._sock.recv(262_144)
        if not data:
            raise Refused("the API closed the connection")
        return data

    def close(self) -> None:
        self._sock.close()


class Stream:
    """One open streaming request: lines go out while answers come in."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection((HOST, port), timeout=TIMEOUT)
        self._sock.sendall(_head(STREAM, "Transfer-Encoding: chunked"))
        self._answer = bytearray()
        self.first_error = b""  # the answer to the first push that was refused; after `end`
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while not self._answer.endswith(b"\r\n0\r\n\r\n"):
                data = self._sock.recv(262_144)
                if not data:
                    return
                self._answer += data
        except OSError:
            return

    def write(self, lines: bytes) -> None:
        """Send lines, as one chunk; waits when the server does not take them. Raises OSError."""
        self._sock.sendall(b"%x\r\n%b\r\n" % (len(lines), lines))

    def end(self) -> tuple[int, int]:
        """End the request and wait for all answers; returns (accepted, refused).

        Raises `Refused` when the server answers with anything but 200.
        """
        self._sock.sendall(b"0\r\n\r\n")
        self._reader.join(TIMEOUT)
        self._sock.close()
        answer = bytes(self._answer)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise Refused(f"the stream was answered {answer[:60]!r}")
        # An answer may be split between two chunks of the transfer encoding: put them together.
        body = _dechunk(answer.partition(b"\r\n\r\n")[2])
        self.first_error = next((line for line in body.split(b"\n") if b'{"error"' in line), b"")
        return body.count(b'{"id"'), body.count(b'{"error"')


def _dechunk(data: bytes) -> bytes:
    parts: list[bytes] = []
    place = 0
    while True:
        end = data.find(b"\r\n", place)
        size = int(data[place:end], 16) if end > place else 0
        if not size:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        place = end + 2 + size + 2
