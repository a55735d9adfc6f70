"""WebSocket framing (RFC 6455) for sockets of our own, by the sans-I/O code of `websockets`.

A `websockets` protocol object weighs more than the rest of a session. But one whose last input
ended with a whole frame and a whole message is as good as new, so an idle session has none:
whichever session receives something borrows one from the pool, and gives it back when it is idle
again. A session keeps one only in the middle of a frame, of a fragmented message, or of a close.
"""

import logging
from collections.abc import Iterable

from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SERVER, Protocol, State
from websockets.server import ServerProtocol

logger = logging.getLogger(__name__)
logger.setLevel(logging.WARNING)  # the library tells of every connection at INFO

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
POOL_MAX = 64  # protocol objects kept for the next session that receives something
VERSION = "13"  # of the protocol
REASON_MAX = 120  # bytes of a close frame's reason: 123 at most with the code (section 5.5)


def packet(payload: bytes, is_text: bool) -> bytes:
    """One unfragmented message, as a server sends it: the same bytes for every session."""
    return Frame(Opcode.TEXT if is_text else Opcode.BINARY, payload).serialize(mask=False)


def answer_upgrade(
    method: str, path: str, protocol: str, headers: Iterable[tuple[str, str]]
) -> tuple[bool, bytes]:
    """(is it accepted, the HTTP response) for an upgrade request that was parsed already."""
    handshake = ServerProtocol(logger=logger)
    request = Request(path, Headers(headers), method, protocol)
    response = handshake.accept(request)
    if response.status_code != 101 and request.headers.get_all("Sec-WebSocket-Version") != [
        VERSION
    ]:
        text = f"The version of the WebSocket protocol must be {VERSION}: Sec-WebSocket-Version.\n"
        response = handshake.reject(426, text)
        response.headers["Upgrade"] = "websocket"
        response.headers["Sec-WebSocket-Version"] = VERSION  # RFC 6455, section 4.4
    handshake.send_response(response)
    return handshake.state is State.OPEN, b"".join(handshake.data_to_send())


def refuse_upgrade(status: int, text: str) -> bytes:
    """The HTTP response that refuses an upgrade."""
    handshake = ServerProtocol(logger=logger)
    handshake.send_response(handshake.reject(status, text))
    return b"".join(handshake.data_to_send())


class _Server(Protocol):
    """The server's side of a connection, which a client may close inside of a message."""

    def recv_frame(self, frame: Frame) -> None:
        """Process a frame. A close frame may come between two fragments (RFC 6455, 5.4, 5.5.1)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Framing:
    """The framing of one connection, from the first byte of a frame on.

    `parts`: frames in the last bytes that were no message by themselves: pings, pongs, closes and
    unfinished fragments.
    """

    __slots__ = ("_bytes_fed", "_message", "_opcode", "_protocol", "parts")

    def __init__(self, message_max: int) -> None:
        self._protocol = _Server(SERVER, max_size=message_max, logger=logger)
        self._bytes_fed = 0  # not accounted for by whole frames
        self._message: bytearray | None = None  # the fragments up to now, at most `message_max`
        self._opcode = Opcode.TEXT  # of the first one
        self.parts = 0

    def feed(self, data: bytes) -> list[str | bytes]:
        """The messages that `data` completes. What breaks the protocol fails the connection."""
        self._protocol.receive_data(data)
        self._bytes_fed += len(data)
        self.parts = 0
        messages: list[str | bytes] = []
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            self._bytes_fed -= _size(frame)
            whole = self._join(frame)
            if whole is None:
                self.parts += 1
                continue
            try:
                messages.append(str(whole, "utf-8") if self._opcode is Opcode.TEXT else whole)
            except UnicodeDecodeError:
                self._protocol.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
                break
        return messages

    def _join(self, frame: Frame) -> bytes | None:
        """Return the message that a frame completes, if it does.

        Fragments become one piece as they come: an empty one costs no memory.
        """
        if frame.opcode not in _DATA:
            return None
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
            if frame.fin:
                return bytes(frame.data)
            self._message = bytearray()
        assert self._message is not None
        self._message += frame.data
        if not frame.fin:
            return None
        whole, self._message = bytes(self._message), None
        return whole

    def out(self) -> bytes:
        """What has to be sent now: pongs and close frames."""
        return b"".join(self._protocol.data_to_send())

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless the peer has."""
        if self._protocol.state is State.OPEN:
            text = reason.encode()[:REASON_MAX].decode(errors="ignore")
            try:
                self._protocol.send_close(int(code), text)
            except ProtocolError:
                self._protocol.send_close(CloseCode.INTERNAL_ERROR)

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to close."""
        return self._protocol.state is State.OPEN

    @property
    def is_done(self) -> bool:
        """Whether the socket should be closed: the closing handshake is over, or never will be."""
        return self._protocol.eof_sent

    @property
    def is_idle(self) -> bool:
        """Whether it is as good as new: between two messages of an open connection.

        A frame whose length is written longer than it need be is not recognised; its session
        keeps its framing, which costs memory alone.
        """
        return self._bytes_fed == 0 and self._message is None and self.is_open


def _size(frame: Frame) -> int:
    """Bytes of a client's frame on the wire, its length written as short as can be."""
    length = len(frame.data)
    return length + (6 if length < 126 else 8 if length < 65_536 else 14)


class FramingPool:
    """Framings that are as good as new, for whoever receives something."""

    def __init__(self, message_max: int) -> None:
        self._message_max = message_max  # bytes
        self._idle: list[Framing] = []

    def take(self) -> Framing:
        """A framing of its own for one session."""
        return self._idle.pop() if self._idle else Framing(self._message_max)

    def give_back(self, framing: Framing) -> None:
        """Take back an idle one."""
        if len(self._idle) < POOL_MAX:
            self._idle.append(framing)
