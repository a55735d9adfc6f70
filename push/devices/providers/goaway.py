"""GOAWAY frames of HTTP/2, taken out of what a server sends before h2 reads it.

With GOAWAY, a server names the last stream that it has accepted, and still answers these streams
(RFC 9113, section 6.8). h2 accepts no frame after it, so it would lose those answers.
"""

HEAD = 9  # bytes before the payload of a frame (RFC 9113, section 4.1)
PAYLOAD_MAX = 16_384  # bytes; h2 refuses a longer frame, as we allow none
GOAWAY = 0x07  # type of the frame
GOAWAY_MIN = 8  # bytes: the last stream, and the error's code
STREAM = 0x7FFF_FFFF  # bits of a stream's id


class FrameSplitter:
    """Splitter of a server's bytes into whole frames. It holds back at most one frame."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> tuple[bytes, list[int]]:
        """Return the frames that are not GOAWAY, and the last stream that each GOAWAY names."""
        data = self._rest + data
        frames: list[bytes] = []
        last_streams: list[int] = []
        start = 0
        while len(data) - start >= HEAD:
            size = int.from_bytes(data[start : start + 3])
            payload, end = start + HEAD, start + HEAD + size
            if end > len(data) and size <= PAYLOAD_MAX:
                break
            if data[start + 3] == GOAWAY and GOAWAY_MIN <= size <= PAYLOAD_MAX:
                last_streams.append(int.from_bytes(data[payload : payload + 4]) & STREAM)
            else:
                frames.append(data[start:end])
            start = end
        self._rest = data[start:]
        return b"".join(frames), last_streams
