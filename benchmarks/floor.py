"""The send floor: the loop `for s in sockets: s.send(frame)` and nothing else.

`python -m benchmarks.floor` listens on a port of 127.0.0.1, prints it, and does what its standard
input says, a line each: `accept N`; `send SIZE TIMES`, answered with the CPU seconds of the loop.
"""

import socket
import sys
import time


def serve() -> None:
    """Answer commands until the input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    sockets: list[socket.socket] = []
    for line in sys.stdin:
        name, *numbers = line.split()
        if name == "accept":
            _accept(listener, sockets, int(numbers[0]))
            print("accepted", flush=True)
        else:
            print(_send(sockets, int(numbers[0])), flush=True)


def _accept(listener: socket.socket, sockets: list[socket.socket], count: int) -> None:
    for _ in range(count):
        sock, _ = listener.accept()
        sock.setblocking(False)  # as in a node
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)


def _send(sockets: list[socket.socket], size: int) -> float:
    frame = b"^".ljust(size, b".")
    before = time.process_time()
    for s in sockets:
        s.send(frame)
    return time.process_time() - before


if __name__ == "__main__":
    serve()
