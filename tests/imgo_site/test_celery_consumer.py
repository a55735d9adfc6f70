"""The consumer of tasks: a task that cannot be acknowledged ends the connection, and only that."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from imgo_site.celery_consumer import Consumer

ERRORS = (ConnectionError,)


@pytest.fixture
def hub():
    made = Hub(timer=Timer())
    made.propagate_errors = ERRORS
    yield made
    made.close()


@pytest.fixture
def consumer(hub: Hub) -> Any:
    """A consumer with a loop and a connection, and nothing else."""
    found: Any = Consumer.__new__(Consumer)
    found.hub, found.connection = hub, SimpleNamespace()
    return found


def fail(*_: Any) -> None:
    raise ConnectionError("the broker has gone")


def acknowledge(consumer: Any) -> None:
    consumer.call_soon_ack(fail, logging.getLogger(), ERRORS)


def turns(hub: Hub, count: int = 3) -> None:
    """Let the loop run for some turns."""
    loop = hub.create_loop()
    for _ in range(count):
        next(loop)


def test_what_cannot_be_acknowledged_ends_the_connection(hub, consumer):
    acknowledge(consumer)
    with pytest.raises(ConnectionError, match="the broker has gone"):
        turns(hub)


def test_cleaning_up_after_a_lost_connection_raises_nothing(hub, consumer):
    acknowledge(consumer)
    hub.reset()
    consumer.connection = SimpleNamespace()  # the next one
    turns(hub)
