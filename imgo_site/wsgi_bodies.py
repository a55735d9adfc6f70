"""Request bodies under a WSGI server: chunked bodies are read, and each path limits the size.

A body that ends before the length that it announced is refused: the part that arrived may look like
a whole push.

Django reads only as many bytes as Content-Length gives, which for a chunked body is none. A server
that marks its input as terminated (gunicorn) ends the input at the end of the body.
"""

import time
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.core.handlers.wsgi import WSGIRequest

from imgo_site.conf import conf
from imgo_site.request_limits import body_limit, find_view, view_class


class LimitedInput:
    """A WSGI input that must be complete, and that has at most `limit` bytes.

    `length`: number of bytes that the request announced; None for a chunked body, whose end the
    server checks.

    Reading raises `RequestDataTooBig` above the limit; `TimeoutError` if the server ended a body
    that was too slow; `ConnectionError` if the client ended it early.
    """

    def __init__(self, source: Any, limit: int, length: int | None = None) -> None:
        self._source = source
        self._limit = limit
        self._length = length
        self._size = 0
        self._began = time.monotonic()

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes; the rest if that is shorter, or if `size` is negative or None."""
        most = self._most(size)
        data = self._source.read(most)
        return self._counted(data, is_last=len(data) < most)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line, or its first `size` bytes."""
        most = self._most(size)
        data = self._source.readline(most)
        return self._counted(data, is_last=len(data) < most and not data.endswith(b"\n"))

    def close(self) -> None:
        """Do nothing: the server owns the input."""

    def _most(self, size: int | None) -> int:
        # One byte above the limit is enough to detect a larger body.
        most = self._limit - self._size + 1
        return most if size is None or size < 0 else min(size, most)

    def _counted(self, data: bytes, *, is_last: bool) -> bytes:
        self._size += len(data)
        if self._size > self._limit:
            raise RequestDataTooBig(
                f"A request to this path has at most {self._limit} bytes in its body."
            )
        if is_last and self._length is not None and self._size < self._length:
            # gunicorn's worker ends a late body, which then looks like one that the client ended.
            if time.monotonic() - self._began >= conf.BODY_TIMEOUT:
                raise TimeoutError("The request's body did not arrive in time.")
            raise ConnectionError("The request's body ended early.")
        return data


class BodyRequest(WSGIRequest):
    """Django's request, with a body of known or unknown length and of a bounded size."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._bound(environ)
        super().__init__(environ)
        if environ.get("wsgi.input_terminated") and not environ.get("CONTENT_LENGTH"):
            self._stream: Any = environ["wsgi.input"]

    @staticmethod
    def _bound(environ: dict[str, Any]) -> None:
        length = environ.get("CONTENT_LENGTH") or ""
        if length == "0" or not (length or environ.get("wsgi.input_terminated")):
            return
        match = find_view(environ.get("PATH_INFO") or "/")
        if match is not None and getattr(view_class(match), "reads_as_it_comes", False):
            return
        limit = body_limit(environ["REQUEST_METHOD"].upper(), match)
        announced = int(length) if length.isdigit() else None
        if announced is not None and announced > limit:
            limit = 0  # so that none of it is read
        environ["wsgi.input"] = LimitedInput(environ["wsgi.input"], limit, announced)
