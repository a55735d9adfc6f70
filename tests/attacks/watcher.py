"""A program that uses a node while it is attacked: heartbeats, and new sessions.

It is a process of its own, with blocking sockets, so that what it measures is the node's time and
not that of whoever attacks. Arguments: host, raw-TCP port, token, another token. It ends when its
standard input does, and prints what it saw as JSON.
"""

import json
import select
import socket
import struct
import sys
import time

HEADER = struct.Struct(">ihhii")
HEARTBEAT, AUTH, AUTH_REPLY = 2, 7, 8
PAUSE = 0.05  # seconds between two heartbeats
BETWEEN = 5  # heartbeats between two new sessions
TIMEOUT = 10.0  # seconds


def pack(op: int, body: bytes = b"") -> bytes:
    return HEADER.pack(HEADER.size + len(body), HEADER.size, 1, op, 1) + body


def receive(sock: socket.socket) -> int:
    """The op of the next frame."""
    data = b""
    while len(data) < HEADER.size:
        piece = sock.recv(HEADER.size - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    length, _, _, op, _ = HEADER.unpack(data)
    while (length := length - 16) > 0 and sock.recv(length):
        pass
    return op


def session(host: str, port: int, token: str) -> socket.socket:
    sock = socket.create_connection((host, port), TIMEOUT)
    sock.sendall(pack(AUTH, token.encode()))
    if receive(sock) != AUTH_REPLY:
        raise ConnectionError("refused")
    return sock


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(host: str, port: int, token: str, other: str) -> None:
    sock = session(host, port, token)
    beats: list[float] = []
    opened: list[float] = []
    failed = 0
    say("ready")
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        start = time.monotonic()
        sock.sendall(pack(HEARTBEAT))
        receive(sock)
        beats.append(time.monotonic() - start)
        if len(beats) % BETWEEN == 0:
            start = time.monotonic()
            try:
                session(host, port, other).close()
                opened.append(time.monotonic() - start)
            except OSError:
                failed += 1
    say(json.dumps({"beats": beats, "opened": opened, "failed": failed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:5])
