"""Log lines: which request they belong to, and how they look.

The id of the request under way is kept in a context variable; `RequestMiddleware` sets it, and a
task sets it for the fan-out that a request has asked for. `LOG_FORMAT=json` makes each line a JSON
object with the fields below and no others: Django and Celery attach whole requests to theirs.
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

_SANE = re.compile(r"[A-Za-z0-9._:/+=@~-]{1,100}")  # what is taken from a caller
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_request_id: ContextVar[str] = ContextVar("imgo_request_id", default="")


def sane_request_id(text: str) -> str:
    """What a caller sent as its request id, or a new one when that is not fit for a log."""
    return text if _SANE.fullmatch(text) else secrets.token_hex(8)


def request_id() -> str:
    """The id of the request under way, "" when there is none."""
    return _request_id.get()


@contextmanager
def within(name: str) -> Iterator[None]:
    """Log lines from inside belong to the request of this id."""
    token = _request_id.set(name)
    try:
        yield
    finally:
        _request_id.reset(token)


def note_push(push_id: int, what: str, request: str = "") -> None:
    """Say how far a push is, when such lines are wanted. `request`: the id of its own, if any."""
    if pushes.isEnabledFor(logging.INFO):
        about = {"push_id": str(push_id), "request_id": request}
        pushes.info("push %d %s", push_id, what, extra=about)


class RequestFilter(logging.Filter):
    """Notes in each record which request it belongs to, unless the line itself says."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets all pass."""
        if not hasattr(record, "request_id") and (name := request_id()):
            record.request_id = name
        return True


def one_line(text: str) -> str:
    """Return `text` with its line ends and control characters escaped.

    Text that others chose must not begin a line of its own in a log, nor move a terminal's cursor.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class OneLine(logging.Filter):
    """Escapes messages for formatters that are not ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let all pass."""
        record.msg, record.args = one_line(record.getMessage()), ()
        return True


class LineFormatter(logging.Formatter):
    """A line for people, with the request's id at its end.

    Lines of a traceback are indented: what an exception quotes begins no line either.
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
    """A JSON object a line: time, level, logger, message, and of the rest only `FIELDS`."""

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
        """What is in a line."""
        super().add_fields(log_data, record, message_dict)
        shown = {"time", "level", "logger", "message", "exc_info", "stack_info", *FIELDS}
        for name in log_data.keys() - shown:
            del log_data[name]
        if not log_data.get("request_id"):
            log_data.pop("request_id", None)
