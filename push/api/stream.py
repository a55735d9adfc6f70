"""Pushes as a stream: newline-delimited JSON in, an answer a line out, while the request is open.

For feeders that push thousands a second. A thread reads lines; whatever has come while the last
group was committed is the next group: one transaction and one task, so that a slow feeder is
answered at once and a fast one gets large groups. No line passes through middleware or DRF.

The request body is read as it comes under a WSGI server (gunicorn with threads); Daphne hands a
request over when all of it is there, so under a node this works, but answers come at the end.
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
from push.api.base import ApiView
from push.api.problems import problem
from push.api.schemas import PushRequest, read, utf8

logger = logging.getLogger(__name__)

GROUP_MAX = 1_000  # lines of one transaction
BUFFERED_MAX = 4_000  # lines read ahead; then the feeder has to wait
LOOK_EVERY = 1.0  # seconds between two looks at the deadlines
LINE_EXTRA = 16_384  # bytes that a line may be longer than its body


class StreamView(ApiView):
    """Push a stream of objects, one a line."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_REQUEST"  # where a server hands it over when all of it is there
    reads_as_it_comes = True

    def post(self, request: Request) -> StreamingHttpResponse:
        """200 and one line for each: `{"id": "1"}` or `{"error": {...}}`, in order."""
        environ = getattr(request._request, "environ", None)
        # Django reads a body of unknown length as empty; the server's own input is not.
        source = environ["wsgi.input"] if environ is not None else request._request
        lines = Lines(source, (environ or {}).get("gunicorn.socket"))
        answers = _answers(lines, caller(request).name)
        response = StreamingHttpResponse(answers, content_type="application/x-ndjson")
        response["X-Accel-Buffering"] = "no"  # nginx would keep the answers to itself
        return response


class Lines:
    """Reads lines on a thread and hands them over in groups."""

    def __init__(self, source: Any, connection: socket.socket | None = None) -> None:
        self._source = source
        self._connection = connection
        self._heard = time.monotonic()  # when bytes came last
        self._began = 0.0  # when the first bytes of an unfinished line did; 0: there is none
        self._queue: queue.Queue[bytes | None] = queue.Queue(BUFFERED_MAX)
        self._is_over = False
        self._thread = threading.Thread(target=self._read, name="imgo-stream", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        try:
            for piece in pieces(self._source):
                self._heard = time.monotonic()
                *lines, rest = (rest + piece).split(b"\n")
                if lines or not rest:
                    self._began = self._heard if rest else 0.0
                else:
                    self._began = self._began or self._heard
                for line in filter(bytes.strip, lines):
                    self._queue.put(line)
                if self._is_over or len(rest) > conf.MAX_BODY + LINE_EXTRA:
                    break
        except Exception as error:  # noqa: BLE001 - whatever a server raises when the feeder is gone
            logger.info("a stream of pushes broke off: %s", error)
            rest = b""  # half a line, most likely, and nobody to answer
        finally:
            if rest.strip():
                self._queue.put(rest)
            self._queue.put(None)

    def group(self) -> list[bytes]:
        """Return all lines that are there, at least one; none at the end. Raises `TooSlow`."""
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
            if self._began and now - self._began > conf.STREAM_LINE_TIMEOUT:
                raise TooSlow(f"A line must be complete within {conf.STREAM_LINE_TIMEOUT:g} s.")
            if now - self._heard > conf.STREAM_IDLE_TIMEOUT:
                raise TooSlow(f"Nothing came for {conf.STREAM_IDLE_TIMEOUT:g} s; send it again.")

    def close(self) -> None:
        """Let the thread end: it waits for bytes, or for room in its queue."""
        self._is_over = True
        if self._connection is not None and self._thread.is_alive():
            with suppress(OSError):  # closed already
                self._connection.shutdown(socket.SHUT_RD)
        while not self._queue.empty():
            self._queue.get_nowait()


def pieces(source: Any) -> Iterator[bytes]:
    """A request body as it comes.

    gunicorn's `readline` waits for a kilobyte. The parser of a chunked body below it does not.
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
    """The answers to the lines of one group, which are accepted together."""
    checked = [_check(line) for line in group]
    pushes = [item for item in checked if isinstance(item, Push)]
    outcomes: Iterator[int | ImgoError]
    try:
        outcomes = iter(accept_pushes(pushes, by) if pushes else [])
    except Unavailable as error:
        outcomes = repeat(error)
    except OutcomeUnknown:
        outcomes = iter([OutcomeUnknown(bool(push.dedupe_id)) for push in pushes])
    for item in checked:
        outcome = next(outcomes) if isinstance(item, Push) else item
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
