"""Log filters for network faults, which Celery logs with the traceback of its client library.

A short outage of a broker is no bug. An operator needs one line about it, not fifty lines of a
library's code. Errors other than connection errors keep their traceback.
"""

import logging

from django.core.exceptions import RequestAborted
from kombu.exceptions import OperationalError
from redis import RedisError

CONNECTION_ERRORS = (OSError, RedisError, OperationalError)
REPEAT_AFTER = 10.0  # seconds
LIBRARIES = ("celery", "kombu")  # their loggers


class OneLine(logging.Filter):
    """Filter for a handler: removes the traceback of the libraries' connection errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record if it is about a connection; return True."""
        error = record.exc_info[1] if record.exc_info else None
        is_of_library = record.name.partition(".")[0] in LIBRARIES
        if is_of_library and isinstance(error, CONNECTION_ERRORS):
            record.msg, record.args = f"{record.getMessage()}: {error}", ()
            record.exc_info = record.exc_text = None
        return True


class NoRepeats(logging.Filter):
    """Filter that drops a record with the text of the one before, for `REPEAT_AFTER` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ("", 0.0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record's text is new, or its repetition is due."""
        text, (last, until) = record.getMessage(), self._last
        if text == last and record.created < until:
            return False
        self._last = (text, record.created + REPEAT_AFTER)
        return True


class NoAborts(logging.Filter):
    """Filter that drops asyncio's records about requests whose clients have disconnected.

    Django raises `RequestAborted` internally. If a stopping server has cancelled the request, no
    caller handles the exception, and asyncio logs it with a traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is about another error or none."""
        return not (record.exc_info and isinstance(record.exc_info[1], RequestAborted))
