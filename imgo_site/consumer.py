"""Celery's consumer of tasks, made to take tasks again whatever happened to the broker."""

import logging
import time
from collections.abc import Callable
from functools import partial
from logging import Logger
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection

logger = logging.getLogger(__name__)

RETRY_INTERVAL = 1  # seconds; Celery would wait 2 more each time, up to 30

Errors = tuple[type[Exception], ...]


class Consumer(CeleryConsumer):
    """`worker_consumer` of the settings.

    It tells other workers nothing, and asks them nothing: none of ours listens, and what Celery
    tells every two seconds stops the worker for half a minute when the broker does not answer.
    """

    connection_errors: Errors  # of the broker's transport: set by Celery

    def __init__(self, *args: Any, **options: Any) -> None:
        alone = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)
        super().__init__(*args, **{**options, **alone})

    def call_soon_ack(
        self, settle: Callable[..., None], logger: Logger, errors: Errors, *args: Any
    ) -> Any:
        """Acknowledge or reject a task; what fails in that ends the connection.

        Celery would log the error and go on, with the task in hand for good. For a worker that has
        one in hand at a time it is the last one that it takes (celery#2415). A new connection
        begins with empty hands, and the broker gives the task to somebody again.
        """
        settling = partial(settle, logger, (), *args)
        return super().call_soon_ack(self._settle, settling, errors)  # type: ignore[misc]

    def _settle(self, settling: Callable[[], None], errors: Errors) -> None:
        try:
            settling()
        except errors as error:
            # Not raised here, nor by what the loop calls soon: both happen while it cleans up
            # after the very loss of the connection too. Timers fire in a loop that runs only.
            give_up = partial(self._give_up, self.connection, error)
            hub = self.hub  # type: ignore[attr-defined]  # not in its stubs
            if hub:
                hub.call_later(0, give_up)
            else:
                self.call_soon(give_up)

    def _give_up(self, connection: Connection | None, error: Exception) -> None:
        if self.connection is connection:
            raise error

    def ensure_connected(self, conn: Connection) -> Connection:
        """Try until there is a connection, however long that takes, and soon after it can be had.

        Raises what Celery's own raises, when the settings forbid to try again.
        """
        # Celery has no setting for it.
        steady = partial(conn.ensure_connection, interval_start=RETRY_INTERVAL, interval_step=0)
        conn.ensure_connection = steady  # type: ignore[method-assign]
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log the error in one line, and wait for a broker that refuses what is asked of it."""
        logger.error("the broker cannot be used: %s; trying again", exc)
        self._wait_after(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log the error in one line, and wait for a broker that refuses what is asked of it."""
        super().on_connection_error_after_connected(exc)
        self._wait_after(exc)

    def _wait_after(self, error: Exception) -> None:
        # Celery pauses between attempts to connect only. A Redis that is full or read-only takes
        # the connection, and refuses the first command: that would be tried without a pause.
        if not isinstance(error, self.connection_errors):
            time.sleep(RETRY_INTERVAL)
