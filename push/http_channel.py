"""Twisted's side of an HTTP connection, with room for long queries and an answer to longer ones.

goim's callers name a thousand keys in a query. Twisted's own reads 16 KiB, and closes the
connection without a word when a line is longer.
"""

from typing import Any

from twisted.web.http import HTTPChannel

from imgo_site.names import REQUEST_LINE_MAX

_ANSWER = (
    "HTTP/1.1 {status}\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: {length}\r\n"
    "Connection: close\r\n\r\n"
    "{text}"
)
_TEXT = f"The first line and the headers of a request have at most {REQUEST_LINE_MAX} bytes each.\n"


class Channel(HTTPChannel):
    """One connection."""

    MAX_LENGTH = REQUEST_LINE_MAX
    totalHeadersSize = 2 * REQUEST_LINE_MAX  # noqa: N815 - Twisted's name; the first line counts
    transport: Any
    _is_refused = False

    def dataReceived(self, data: bytes) -> None:
        """Bytes have come; what follows a line that is too long is of no interest."""
        if not self._is_refused:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802 - Twisted's
        """Say so, and close our end; the other ends with the client, or by the usual timeout.

        Closing both at once would reset the connection, and the answer might never be read.
        """
        self._is_refused = True
        status = "431 Request Header Fields Too Large" if self.requests else "414 URI Too Long"
        self.transport.write(_ANSWER.format(status=status, length=len(_TEXT), text=_TEXT).encode())
        self.transport.loseWriteConnection()
