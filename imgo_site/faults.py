"""Faults of the network in one line: Celery logs them with the traceback of its client library.

That a broker was away for a moment is no bug, and whoever is called at night should see that it
was, not fifty lines of somebody else's code. What is not about a connection keeps its traceback.
"""

import logging

from django.core.exceptions import RequestAborted
from kombu.exceptions import OperationalError
from redis import RedisError

CONNECTION_ERRORS = (OSError, RedisError, OperationalError)
REPEAT_AFTER = 10.0  # seconds
LIBRARIES = ("celery", "kombu")  # their loggers


class OneLine(logging.Filter):
    """Takes the traceback off the libraries' records about connections. For a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        error = record.exc_info[1] if record.exc_info else None
        is_theirs = record.name.partition(".")[0] in LIBRARIES
        if is_theirs and isinstance(error, CONNECTION_ERRORS):
            record.msg, record.args = f"{record.getMessage()}: {error}", ()
            record.exc_info = record.exc_text = None
        return True


class NoRepeats(logging.Filter):
    """Drops records that say what the one before has said, for some seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ("", 0.0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record says something new."""
        text, (last, until) = record.getMessage(), self._last
        if text == last and record.created < until:
            return False
        self._last = (text, record.created + REPEAT_AFTER)
        return True


class NoAborts(logging.Filter):
    """Drops asyncio's records about requests whose clients have left.

    Django raises that for itself. When a server that stops has cancelled the request, nobody is
    there to take it, and asyncio logs it with a traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is about anything else."""
        return not (record.exc_info and isinstance(record.exc_info[1], RequestAborted))
