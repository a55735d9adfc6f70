"""A backend for the authenticate hook: answers every POST with the token as the key.

`python -m benchmarks.hook_backend PORT`. A GET is answered with the number of other connections
that it has accepted.
"""

import asyncio
import json
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "


class Connection(asyncio.Protocol):
    """One kept connection. Requests come one after the other."""

    accepted = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        assert isinstance(transport, asyncio.Transport)
        type(self).accepted += 1
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer a request when it is complete."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        if head.startswith(b"GET"):
            answer = str(type(self).accepted - 1).encode()
        else:
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            if len(body) < size:
                return
            answer = json.dumps({"key": json.loads(body)["token"]}).encode()
        self.received = b""
        self.transport.write(b"%s%d\r\n\r\n%s" % (HEAD, len(answer), answer))


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
