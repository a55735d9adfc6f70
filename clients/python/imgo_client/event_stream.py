"""Parser of Server-Sent Events: bytes to blocks, without I/O."""

from __future__ import annotations

from typing import NamedTuple

from imgo_client.errors import ProtocolError


class Block(NamedTuple):
    """One event, or an id without an event. `id`: None if the block has none."""

    event: str = "message"
    data: str = ""
    id: str | None = None


class BlockParser:
    """Parser of a stream of bytes that may be cut anywhere. Blocks with only comments are left out.

    `max_size`: limit of one block, in bytes. A larger block is refused before it is complete.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._rest = bytearray()  # an unfinished line
        self._begin()

    def feed(self, data: bytes) -> list[Block]:
        """Return the blocks that `data` completes. Raises `ProtocolError`."""
        blocks: list[Block] = []
        self._rest += data
        if b"\n" in data or b"\r" in data:
            for line in self._lines():
                self._size += len(line) + 1
                self._check(self._size)
                if line:
                    self._take(line)
                    continue
                if self._data or self._id is not None:
                    blocks.append(Block(self._event, "\n".join(self._data), self._id))
                self._begin()
        self._check(self._size + len(self._rest))
        return blocks

    def _check(self, size: int) -> None:
        if size > self._max_size:
            raise ProtocolError(f"an event has more than {self._max_size} bytes")

    def _lines(self) -> list[bytes]:
        """Remove the complete lines from the buffer. An LF may follow a CR at its end."""
        held = b"\r" if self._rest.endswith(b"\r") else b""
        data = bytes(self._rest.removesuffix(held))
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = bytearray(rest + held)
        return lines

    def _begin(self) -> None:
        self._event = "message"
        self._data: list[str] = []
        self._id: str | None = None
        self._size = 0  # bytes of the unfinished block, without the unfinished line

    def _take(self, line: bytes) -> None:
        try:
            name, _, value = line.decode().partition(":")
        except UnicodeDecodeError:
            raise ProtocolError("the stream of events is not UTF-8") from None
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
