"""Pushes as a stream: newline-delimited JSON in, one answer line for each, during one request.

This is for feeders that push thousands of messages a second. A thread reads lines. The lines that
arrive during one commit form the next group, with one transaction and one task. So a slow feeder
gets its answers at once, and a fast one gets large groups. Lines pass no middleware and no DRF.

Under a WSGI server (gunicorn with threads) the body is read while it arrives. Daphne passes a
request on only when it is complete, so under a node all answers come at the end.
"""

import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import repeat
from typing import Any, ClassVar

from django.http import StreamingHttpResponse
from rest_framework.request import Request

from accounts.authentication import caller
from imgo_site.conf import conf
from imgo_site.errors import ImgoError, OutcomeUnknown, TooLarge, TooSlow, Unavailable
from push.accept.accept import Push, accept_pushes
from push.api.base import V1View
from push.api.problems import problem
from push.api.schemas import PushRequest, read, utf8

logger = logging.getLogger(__name__)

GROUP_MAX = 1_000  # lines of one transaction
BUFFERED_MAX = 4_000  # lines read ahead; above that, the feeder has to wait
LOOK_EVERY = 1.0  # seconds between two checks of the deadlines
LINE_EXTRA = 16_384  # bytes that a line may have besides MAX_BODY


class StreamView(V1View):
    """Pushes as a stream of objects, one a line."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_REQUEST"  # for servers that pass on only a complete body
    reads_as_it_comes = True

    def post(self, request: Request) -> StreamingHttpResponse:
        """Return 200 and one line for each push, in order: `{"id": "1"}` or `{"error": {...}}`."""
        environ = getattr(request._request, "environ", None)
        # Django treats a body of unknown length as empty. The server's own input has it.
        source = environ["wsgi.input"] if environ is not None else request._request
        lines = Lines(source, (environ or {}).get("gunicorn.socket"))
        answers = _answers(lines, caller(request).name)
        response = StreamingHttpResponse(answers, content_type="application/x-ndjson")
        response["X-Accel-Buffering"] = "no"  # nginx would hold back the answers
        return response


class Lines:
    """Lines of a request body, read by a thread and returned in groups.

    `connection`: gunicorn's socket, closed for reading at the end so that the thread ends; or None.
    """

    def __init__(self, source: Any, connection: socket.socket | None = None) -> None:
        self._source = source
        self._connection = connection
        self._last_read = time.monotonic()  # when the last bytes arrived
        self._line_began = 0.0  # when an unfinished line's first bytes arrived; 0: no such line
        self._queue: queue.Queue[bytes | None] = queue.Queue(BUFFERED_MAX)
        self._is_over = False
        self._thread = threading.Thread(target=self._read, name="imgo-stream", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        try:
            for piece in pieces(self._source):
                self._last_read = time.monotonic()
                *lines, rest = (rest + piece).split(b"\n")
                if lines or not rest:
                    self._line_began = self._last_read if rest else 0.0
                else:
                    self._line_began = self._line_began or self._last_read
                for line in filter(bytes.strip, lines):
                    self._queue.put(line)
                if self._is_over or len(rest) > conf.MAX_BODY + LINE_EXTRA:
                    break
        except Exception as error:  # noqa: BLE001 - whatever a server raises when the feeder is gone
            logger.info("a stream of pushes broke off: %s", error)
            rest = b""  # most likely half a line, and the feeder reads no answer
        finally:
            if rest.strip():
                self._queue.put(rest)
            self._queue.put(None)

    def group(self) -> list[bytes]:
        """Wait for a line; return it with all lines read so far. An empty list is the end.

        A group has at most GROUP_MAX lines. Raises `TooSlow` if the feeder misses a deadline.
        """
        first = self._next()
        if first is None:
            return []
        lines = [first]
        while len(lines) < GROUP_MAX:
            try:
                line = self._queue.get_nowait()
            except queue.Empty:
                break
            if line is None:
                self._queue.put(None)
                break
            lines.append(line)
        return lines

    def _next(self) -> bytes | None:
        while True:
            try:
                return self._queue.get(timeout=LOOK_EVERY)
            except queue.Empty:
                now = time.monotonic()
            if self._line_began and now - self._line_began > conf.STREAM_LINE_TIMEOUT:
                raise TooSlow(f"A line must be complete within {conf.STREAM_LINE_TIMEOUT:g} s.")
            if now - self._last_read > conf.STREAM_IDLE_TIMEOUT:
                raise TooSlow(f"Nothing came for {conf.STREAM_IDLE_TIMEOUT:g} s; send it again.")

    def close(self) -> None:
        """Let the thread end, whether it waits for bytes or for space in its queue."""
        self._is_over = True
        if self._connection is not None and self._thread.is_alive():
            with suppress(OSError):  # closed already
                self._connection.shutdown(socket.SHUT_RD)
        while not self._queue.empty():
            self._queue.get_nowait()


def pieces(source: Any) -> Iterator[bytes]:
    """Yield the pieces of a request body while they arrive.

    gunicorn's `readline` waits for a kilobyte. Its parser of chunked bodies does not.
    """
    parser = getattr(getattr(source, "reader", None), "parser", None)
    if parser is not None:
        yield from parser
        return
    while line := source.readline(conf.MAX_BODY + LINE_EXTRA):
        yield line


def _answers(lines: Lines, by: str) -> Iterator[bytes]:
    try:
        while group := lines.group():
            yield b"".join(_answer(group, by))
    except TooSlow as error:
        yield _refused(error)
    finally:
        lines.close()


def _answer(group: list[bytes], by: str) -> Iterator[bytes]:
    """Accept the lines of one group in one transaction; yield an answer for each."""
    checked = [_check(line) for line in group]
    pushes = [push for push in checked if isinstance(push, Push)]
    outcomes: Iterator[int | ImgoError]
    try:
        outcomes = iter(accept_pushes(pushes, by) if pushes else [])
    except Unavailable as error:
        outcomes = repeat(error)
    except OutcomeUnknown:
        outcomes = iter([OutcomeUnknown(bool(push.dedupe_id)) for push in pushes])
    for result in checked:
        outcome = next(outcomes) if isinstance(result, Push) else result
        if isinstance(outcome, int):
            yield b'{"id":"%d"}\n' % outcome
        else:
            yield _refused(outcome)


def _refused(error: ImgoError) -> bytes:
    return json.dumps({"error": problem(error)}, separators=(",", ":")).encode() + b"\n"


def _check(line: bytes) -> Push | ImgoError:
    if len(line) > conf.MAX_BODY + LINE_EXTRA:
        return TooLarge("The line is too long; the rest of the stream was not read.")
    try:
        return read(utf8(line), PushRequest).as_push()
    except ImgoError as error:
        return error
