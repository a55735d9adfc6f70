"""Wakes the workers when something was committed, without making anybody wait for the broker.

A push is accepted when its transaction is committed. That there is something to do in a partition
goes to the broker from a thread: however many pushes come while it is busy, or while the broker is
away, it is one task for each partition. What a process that dies has not said, a node's sweep
finds.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Iterable

from kombu.exceptions import OperationalError as BrokerError

from imgo_site.deployment import has_workers
from imgo_site.forks import renew_after_fork
from imgo_site.logs import request_id
from push.tasks import REQUEST_HEADER, fan_out, queue_of

logger = logging.getLogger(__name__)

PAUSE = 0.003  # seconds from one round to the next: what comes meanwhile shares its tasks
RETRY_INTERVAL = 1.0  # seconds until a broker that failed is tried again
EXIT_TIMEOUT = 2.0  # seconds that the end of a process waits for what is left to say


class Waker:
    """One thread of a process, started when it is first needed."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child: the thread, and what it has to say, are the parent's."""
        self._condition = threading.Condition()
        self._waiting: dict[int, str] = {}  # partitions, and the request that was the first to ask
        self._is_busy = False
        self._pid = 0
        self._thread: threading.Thread | None = None

    def wake(self, partitions: Iterable[int]) -> None:
        """There is something in the outboxes of these partitions."""
        if not has_workers():
            for partition in sorted(partitions):
                fan_out.apply((partition,))
            return
        with self._condition:
            if self._pid != os.getpid():  # the first time, or the first after a fork
                self._pid, self._thread = os.getpid(), None
                atexit.register(self.flush)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="imgo-waker", daemon=True)
                self._thread.start()
            asked = request_id()
            for partition in partitions:
                self._waiting.setdefault(partition, asked)
            self._condition.notify_all()

    def flush(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Wait until everything was said; False when it was not in time."""
        with self._condition:
            return self._condition.wait_for(
                lambda: not self._waiting and not self._is_busy, timeout
            )

    def _run(self) -> None:
        while True:
            with self._condition:
                self._is_busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._waiting)
                todo, self._waiting = self._waiting, {}
                self._is_busy = True
            left = self._say(todo)
            with self._condition:
                self._waiting = left | self._waiting
            time.sleep(RETRY_INTERVAL if left else PAUSE)

    @staticmethod
    def _say(partitions: dict[int, str]) -> dict[int, str]:
        """Enqueue a task for each; returns those for which that failed."""
        left = dict(partitions)
        try:
            for partition, asked in sorted(partitions.items()):
                headers = {REQUEST_HEADER: asked} if asked else {}
                fan_out.apply_async((partition,), queue=queue_of(partition), headers=headers)
                del left[partition]
        except (BrokerError, OSError, AttributeError) as error:
            # AttributeError: of kombu, for a channel whose connection was lost between two steps.
            logger.warning("the workers cannot be woken, a node's sweep sends: %s", error)
        except Exception:
            logger.exception("the workers cannot be woken, a node's sweep sends")
        return left


def _renew() -> None:
    """Leave the connections to the broker to the parent too."""
    waker.renew()
    fan_out.app._after_fork()  # type: ignore[attr-defined]  # not in its stubs


wake = (waker := Waker()).wake
renew_after_fork(_renew)
