"""Log lines: their formats, and the id of the request that they belong to.

A context variable holds the id of the current request. `RequestMiddleware` sets it, and a task
sets it for the fan-out of a request's push. `LOG_FORMAT=json` makes each line a JSON object. It
contains only the fields below, because Django and Celery attach whole requests to their records.
"""

import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

pushes = logging.getLogger("imgo.push")  # INFO with LOG_PUSHES

FIELDS = (
    *("request_id", "push_id", "method", "path", "status", "seconds", "caller", "address"),
    *("key", "session", "node", "transport", "platform", "code", "reason"),  # of a session
)

_SANE = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,100}")  # a request id that a caller may set
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_request_id: ContextVar[str] = ContextVar("imgo_request_id", default="")


def sane_request_id(text: str) -> str:
    """Return a caller's request id; a new one if that is empty or not safe for a log."""
    return text if _SANE.fullmatch(text) else secrets.token_hex(8)


def request_id() -> str:
    """Return the id of the current request; "" if there is none."""
    return _request_id.get()


@contextmanager
def within(name: str) -> Iterator[None]:
    """Set the id of the current request for the block, so that its log lines have the id."""
    token = _request_id.set(name)
    try:
        yield
    finally:
        _request_id.reset(token)


def note_push(push_id: int, what: str, request: str = "") -> None:
    """Log the progress of a push, if `LOG_PUSHES` is set.

    `what`: the stage that the push has reached.
    `request`: the id of the push's request, "" if it has none.
    """
    if pushes.isEnabledFor(logging.INFO):
        fields = {"push_id": str(push_id), "request_id": request}
        pushes.info("push %d %s", push_id, what, extra=fields)


class RequestFilter(logging.Filter):
    """Filter that adds the current request's id to records without a request id."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the id; return True."""
        if not hasattr(record, "request_id") and (name := request_id()):
            record.request_id = name
        return True


def one_line(text: str) -> str:
    """Return `text` with its line ends and control characters escaped.

    Text from clients must not start a new line in the log or move a terminal's cursor.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class OneLine(logging.Filter):
    """Filter that escapes messages, for handlers with formatters of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the message; return True."""
        record.msg, record.args = one_line(record.getMessage()), ()
        return True


class LineFormatter(logging.Formatter):
    """Formatter of lines for people, with the request's id at the end.

    Lines of a traceback are indented, so that text in an exception cannot start a log line.
    """

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 - logging's name
        """Return the lines of a traceback."""
        return _indented(super().formatException(exc_info))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Return the lines of a stack."""
        return _indented(super().formatStack(stack_info))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line without a traceback."""
        record.message = one_line(record.message)
        name = getattr(record, "request_id", "")
        text = super().formatMessage(record)
        return f"{text} [request {name}]" if name else text


def _indented(text: str) -> str:
    return "\n".join(f"  {one_line(line)}" for line in text.splitlines())


class JsonLines(JsonFormatter):
    """Formatter of JSON lines: time, level, logger, message, traceback, and `FIELDS`."""

    def __init__(self) -> None:
        super().__init__(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
        self.converter = time.gmtime
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self.default_msec_format = "%s.%03dZ"

    def add_fields(
        self,
        log_data: dict[str, Any],
        record: logging.LogRecord,
        message_dict: dict[str, Any],
    ) -> None:
        """Add a record's fields; remove all that the line must not contain."""
        super().add_fields(log_data, record, message_dict)
        allowed = {"time", "level", "logger", "message", "exc_info", "stack_info", *FIELDS}
        for name in log_data.keys() - allowed:
            del log_data[name]
        if not log_data.get("request_id"):
            log_data.pop("request_id", None)
