"""Celery's consumer of tasks, extended to recover from every fault of the broker."""

import logging
import time
from collections.abc import Callable
from functools import partial
from logging import Logger
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection

logger = logging.getLogger(__name__)

RETRY_INTERVAL = 1  # seconds; Celery's own starts at 2 and grows by 2 up to 30

Errors = tuple[type[Exception], ...]


class Consumer(CeleryConsumer):
    """The consumer of imgo's workers (`worker_consumer`), without messages between workers.

    imgo's workers do not use such messages. Celery's event every two seconds would block the
    worker for half a minute if the broker does not answer.
    """

    connection_errors: Errors  # of the broker's transport: set by Celery

    def __init__(self, *args: Any, **options: Any) -> None:
        silent = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)
        super().__init__(*args, **{**options, **silent})

    def call_soon_ack(
        self, settle: Callable[..., None], logger: Logger, errors: Errors, *args: Any
    ) -> Any:
        """Acknowledge or reject a task; an error in that ends the connection.

        Celery would log the error and keep the task reserved for ever. A worker that reserves one
        task at a time would then never take another one (celery#2415). A new connection starts
        without reserved tasks, and the broker delivers the task again.
        """
        settling = partial(settle, logger, (), *args)
        return super().call_soon_ack(self._settle, settling, errors)  # type: ignore[misc]

    def _settle(self, settling: Callable[[], None], errors: Errors) -> None:
        try:
            settling()
        except errors as error:
            # Do not raise here, nor in a callback of `call_soon`: both may run while the loop
            # cleans up after this loss of the connection. Timers fire only in a running loop.
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
        """Retry every `RETRY_INTERVAL` seconds, without a limit, until there is a connection.

        Raises the errors of Celery's method if the settings forbid retries.
        """
        # Celery has no setting for the interval.
        steady = partial(conn.ensure_connection, interval_start=RETRY_INTERVAL, interval_step=0)
        conn.ensure_connection = steady  # type: ignore[method-assign]
        return super().ensure_connected(conn)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log the error in one line, and pause if the broker refused a command."""
        logger.error("the broker cannot be used: %s; trying again", exc)
        self._wait_after(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log the error in one line, and pause if the broker refused a command."""
        super().on_connection_error_after_connected(exc)
        self._wait_after(exc)

    def _wait_after(self, error: Exception) -> None:
        # Celery pauses only between attempts to connect. A Redis that is full or read-only
        # accepts the connection and refuses the first command, so retries would have no pause.
        if not isinstance(error, self.connection_errors):
            time.sleep(RETRY_INTERVAL)
