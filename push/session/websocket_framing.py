"""WebSocket framing (RFC 6455) for direct links, with the sans-I/O code of `websockets`.

A `websockets` protocol object takes more memory than the rest of a session. After a whole frame
and a whole message it is in the same state as a new one. So idle sessions have none. A session
that receives bytes takes one from a pool and returns it when it is idle again. It keeps the object
only in the middle of a frame, of a fragmented message, or of a close.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache

from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SERVER, Protocol, State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

logger = logging.getLogger(__name__)
logger.setLevel(logging.WARNING)  # the library logs every connection at INFO

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
POOL_MAX = 64  # idle framings kept in the pool
VERSION = "13"  # of the protocol
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64
_UPGRADE = frozenset({"upgrade", "keep-alive, upgrade"})  # usual values of the Connection header
REASON_MAX = 120  # bytes of a close frame's reason: 123 at most with the code (section 5.5)


def packet(payload: bytes, is_text: bool) -> bytes:
    """Return one unfragmented, unmasked message (RFC 6455, 5.2): the same bytes for every session.

    Written here, because it is made for every message: `websockets` takes five times as long.
    """
    first = b"\x81" if is_text else b"\x82"  # FIN, and opcode 1 or 2
    size = len(payload)
    if size < 126:
        return first + size.to_bytes(1) + payload
    if size < 2**16:
        return first + b"\x7e" + size.to_bytes(2) + payload
    return first + b"\x7f" + size.to_bytes(8) + payload


def answer_upgrade(
    method: str, path: str, protocol: str, headers: Sequence[tuple[str, str]]
) -> tuple[bool, bytes]:
    """Return (is it accepted?, HTTP response) for a parsed upgrade request.

    A request of the usual form is answered here, which takes a tenth of the time. `websockets`
    checks every other one, and words the refusals.
    """
    named = {name.lower(): value for name, value in headers}
    is_usual = method == "GET" and protocol == "HTTP/1.1" and len(named) == len(headers)
    if is_usual and (key := usual_key(named)):
        return True, accepting(key)
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


def usual_key(named: Mapping[str, str]) -> str:
    """Return the Sec-WebSocket-Key of headers that are valid at first sight, "" for others.

    `named`: by name in lower case; no header was there twice.
    """
    key = named.get("sec-websocket-key", "")
    is_usual = (
        _KEY.fullmatch(key)
        and named.get("sec-websocket-version") == VERSION
        and named.get("upgrade", "").lower() == "websocket"
        and named.get("connection", "").lower() in _UPGRADE
        and "sec-websocket-protocol" not in named  # the client names no subprotocol
    )
    return key if is_usual else ""


def accepting(key: str) -> bytes:
    """Return the response that accepts an upgrade: RFC 6455, section 4.2.2."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        f"Date: {_date(int(time.time()))}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
    ).encode()


@lru_cache(maxsize=1)
def _date(now: int) -> str:
    """Return the Date header of a second: a storm of connects needs the same one often."""
    return formatdate(now, usegmt=True)


def refuse_upgrade(status: int, text: str) -> bytes:
    """Return the HTTP response that refuses an upgrade."""
    handshake = ServerProtocol(logger=logger)
    handshake.send_response(handshake.reject(status, text))
    return b"".join(handshake.data_to_send())


class _Server(Protocol):
    """Server side of a connection, which accepts a close frame inside a fragmented message."""

    def recv_frame(self, frame: Frame) -> None:
        """Process a frame. A close frame may come between two fragments (RFC 6455, 5.4, 5.5.1)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Framing:
    """Framing of one connection, from the first byte of a frame on.

    `parts`: number of frames in the last `feed` that completed no message: pings, pongs, closes
    and unfinished fragments.
    """

    __slots__ = ("_bytes_fed", "_message", "_opcode", "_protocol", "parts")

    def __init__(self, message_max: int) -> None:
        self._protocol = _Server(SERVER, max_size=message_max, logger=logger)
        self._bytes_fed = 0  # bytes fed beyond the last whole frame
        self._message: bytearray | None = None  # fragments so far, at most `message_max` bytes
        self._opcode = Opcode.TEXT  # of the first fragment
        self.parts = 0

    def feed(self, data: bytes) -> list[str | bytes]:
        """Return the messages that `data` completes. A protocol violation fails the connection."""
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
        """Return the message that a frame completes, None if it completes none.

        Fragments are joined as they arrive, so empty fragments take no memory.
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
        """Return the bytes that must be sent now: pongs and close frames."""
        return b"".join(self._protocol.data_to_send())

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless the peer has begun it."""
        if self._protocol.state is State.OPEN:
            text = reason.encode()[:REASON_MAX].decode(errors="ignore")
            try:
                self._protocol.send_close(int(code), text)
            except ProtocolError:
                self._protocol.send_close(CloseCode.INTERNAL_ERROR)

    @property
    def is_open(self) -> bool:
        """Return whether neither side has begun to close."""
        return self._protocol.state is State.OPEN

    @property
    def is_done(self) -> bool:
        """Return whether the socket must be closed: the closing handshake has ended or failed."""
        return self._protocol.eof_sent

    @property
    def is_idle(self) -> bool:
        """Return whether the state equals a new one's: between messages of an open connection.

        After a frame with a non-minimal length this stays False. Then the session keeps its
        framing, which costs only memory.
        """
        return self._bytes_fed == 0 and self._message is None and self.is_open


def _size(frame: Frame) -> int:
    """Return the size in bytes of a client's frame on the wire, with a minimal length field."""
    length = len(frame.data)
    return length + (6 if length < 126 else 8 if length < 65_536 else 14)


class FramingPool:
    """Pool of idle framings, for sessions that receive bytes."""

    def __init__(self, message_max: int) -> None:
        self._message_max = message_max  # bytes
        self._idle: list[Framing] = []

    def take(self) -> Framing:
        """Return a framing for use by one session."""
        return self._idle.pop() if self._idle else Framing(self._message_max)

    def give_back(self, framing: Framing) -> None:
        """Return an idle framing to the pool."""
        if len(self._idle) < POOL_MAX:
            self._idle.append(framing)
