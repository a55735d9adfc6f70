"""A fault of the network is one line in the log; a bug keeps its traceback."""

import asyncio
import gc
import logging

import pytest
from django.core.exceptions import RequestAborted
from kombu.exceptions import OperationalError
from redis.exceptions import TimeoutError as RedisTimeout

from imgo_site.fault_logs import NoAborts, NoRepeats, OneLine


def logged(error: Exception, name: str = "celery.bootsteps") -> str:
    """What is written about an error."""
    try:
        raise error
    except type(error) as caught:
        info = (type(caught), caught, caught.__traceback__)
    record = logging.LogRecord(name, logging.ERROR, "", 1, "cannot ack %r", ("t1",), info)
    assert OneLine().filter(record)
    return logging.Formatter("%(message)s").format(record)


@pytest.mark.parametrize(
    "error", [RedisTimeout("timed out"), OperationalError("timed out"), OSError("timed out")]
)
@pytest.mark.parametrize("name", ["celery.bootsteps", "celery", "kombu.asynchronous.hub"])
def test_a_fault_of_the_network_is_one_line(error, name):
    assert logged(error, name) == "cannot ack 't1': timed out"


def test_a_bug_keeps_its_traceback():
    assert "Traceback" in logged(LookupError("a bug"))


def test_a_fault_that_others_log_keeps_its_traceback():
    assert "Traceback" in logged(OSError("disk full"), "app.reports")


def test_what_is_written_to_the_console_is_filtered(settings):
    assert "one_line" in settings.LOGGING["handlers"]["console"]["filters"]


def test_what_is_repeated_within_seconds_is_said_once():
    repeated = NoRepeats()

    def is_said(text: str, second: float) -> bool:
        record = logging.LogRecord("psycopg.pool", logging.WARNING, "", 1, text, (), None)
        record.created = second
        return repeated.filter(record)

    said = [is_said("refused", 0), is_said("refused", 9), is_said("gone", 9), is_said("refused", 9)]
    assert said == [True, False, True, True]
    assert is_said("refused", 20)


@pytest.mark.parametrize(("error", "lines"), [(RequestAborted, 0), (LookupError, 1)])
async def test_request_given_up_at_the_end_is_no_line(caplog, error, lines):
    """Its task is left behind; any other one with an exception is told of."""
    logger, own = logging.getLogger("asyncio"), NoAborts()
    logger.addFilter(own)
    try:

        async def fail() -> None:
            raise error

        left = asyncio.get_running_loop().create_task(fail())
        await asyncio.wait([left])
        del left
        gc.collect()
    finally:
        logger.removeFilter(own)
    assert sum("never retrieved" in one.message for one in caplog.records) == lines
