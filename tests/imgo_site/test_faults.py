"""A fault of the network is one line in the log; a bug keeps its traceback."""

import logging

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import TimeoutError as RedisTimeout

from imgo_site.faults import OneLine


def logged(error: Exception) -> str:
    """What is written about an error."""
    try:
        raise error
    except type(error) as caught:
        info = (type(caught), caught, caught.__traceback__)
    record = logging.LogRecord("celery", logging.ERROR, "", 1, "cannot ack %r", ("t1",), info)
    assert OneLine().filter(record)
    return logging.Formatter("%(message)s").format(record)


@pytest.mark.parametrize(
    "error", [RedisTimeout("timed out"), OperationalError("timed out"), OSError("timed out")]
)
def test_a_fault_of_the_network_is_one_line(error):
    assert logged(error) == "cannot ack 't1': timed out"


def test_a_bug_keeps_its_traceback():
    assert "Traceback" in logged(LookupError("a bug"))


def test_the_loggers_of_celery_that_tell_of_connections_have_it(settings):
    filtered = {name for name, one in settings.LOGGING["loggers"].items() if "filters" in one}
    assert filtered == {
        "celery.worker.request",
        "celery.worker.consumer.consumer",
        "kombu.asynchronous.hub",
    }
