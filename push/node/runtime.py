"""Owner of a process's long-lived tasks: starts, watches, restarts and stops them.

A task that raises or returns is restarted after a growing pause. Each restart is logged and counted
in `imgo_task_restarts_total`. `failing` names the tasks that fail repeatedly, for `/readyz`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from django.db import Error as DatabaseError

from imgo_site.errors import Unavailable
from push.bus.background_tasks import is_cancelled
from push.bus.layers import LAYER_ERRORS
from push.metrics import definitions as metrics

logger = logging.getLogger(__name__)

BACKOFF = (1.0, 30.0)  # seconds until a failed task is restarted: the first pause, the longest
HEALTHY_AFTER = 10.0  # seconds that a task must run for its restart to count as a success
FAILING_AFTER = 2  # consecutive failures after which `failing` names a task
OUTAGES = (DatabaseError, Unavailable, *LAYER_ERRORS)  # of a service, not of the task

Job = Callable[[], Coroutine[Any, Any, None]]


class SupervisedTask:
    """One long-lived task. `failures`: number of consecutive failures."""

    def __init__(self, name: str, run: Job) -> None:
        self.name = name
        self.run = run
        self.failures = 0
        self.task: asyncio.Task[None]

    def failed(self) -> None:
        """Count a failure."""
        self.failures += 1
        metrics.TASK_RESTARTS.labels(self.name).inc()


class Runtime:
    """Keeps tasks running until it is stopped. For one event loop."""

    def __init__(self) -> None:
        self._kept: list[SupervisedTask] = []

    def keep(self, name: str, run: Job) -> None:
        """Run `run()` until `stop`; start it again whenever it returns or raises."""
        kept = SupervisedTask(name, run)
        self._start(kept, self._keep(kept))

    def repeat(self, name: str, job: Job, every: float) -> None:
        """Call `job()` with a pause of `every` seconds before each call, until `stop`.

        An outage of a service is logged as one line, any other error with its traceback. After
        both, the job is called again at the next turn.
        """
        kept = SupervisedTask(name, job)
        self._start(kept, self._repeat(kept, every))

    def failing(self) -> list[str]:
        """Return the names of the tasks that have failed several times in a row."""
        return [kept.name for kept in self._kept if kept.failures >= FAILING_AFTER]

    async def stop(self, deadline: float) -> None:
        """Cancel the tasks in reverse order; wait for them until `deadline` (loop time).

        A task that ignores its cancellation is logged and left behind.
        """
        kept, self._kept = self._kept, []
        for supervised in reversed(kept):
            supervised.task.cancel()
        if kept:
            tasks = [supervised.task for supervised in kept]
            _, pending = await asyncio.wait(tasks, timeout=_until(deadline))
            names = sorted(supervised.name for supervised in kept if supervised.task in pending)
            if names:
                logger.warning("these tasks did not stop in time: %s", ", ".join(names))

    def _start(self, kept: SupervisedTask, coroutine: Coroutine[Any, Any, None]) -> None:
        kept.task = asyncio.get_running_loop().create_task(coroutine, name=kept.name)
        self._kept.append(kept)

    async def _keep(self, kept: SupervisedTask) -> None:
        loop = asyncio.get_running_loop()
        pause = BACKOFF[0]
        while not is_cancelled():
            healthy = loop.call_later(HEALTHY_AFTER, setattr, kept, "failures", 0)
            try:
                await kept.run()
                logger.error("%s ended; it is started again in %g s", kept.name, pause)
            except Exception:
                logger.exception("%s failed; it is started again in %g s", kept.name, pause)
            finally:
                healthy.cancel()
            if not kept.failures:
                pause = BACKOFF[0]
            kept.failed()
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF[1])

    async def _repeat(self, kept: SupervisedTask, every: float) -> None:
        while not is_cancelled():
            await asyncio.sleep(every)
            await run_once(kept, every)


async def run_once(kept: SupervisedTask, every: float) -> None:
    """Run a repeated job once. Raises only if it is cancelled."""
    try:
        await kept.run()
        kept.failures = 0
    except OUTAGES as error:
        logger.warning("%s: %s; trying again in %g s", kept.name, _reason(error), every)
    except Exception:
        kept.failed()
        logger.exception("%s failed; trying again in %g s", kept.name, every)


def _reason(error: BaseException) -> str:
    """Return the text of an error; Python's own timeouts have none."""
    no_text = "no answer in time" if isinstance(error, TimeoutError) else repr(error)
    return str(error) or no_text


async def finish(work: Awaitable[Any], deadline: float, what: str) -> bool:
    """Wait for `work` until `deadline` (loop time); return whether it ended by then.

    Late work is cancelled but not awaited further, because it may ignore the cancellation. Errors
    of `work` are logged. `what`: its name in the log.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=_until(deadline))
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        task.add_done_callback(_retrieve)
        logger.warning("%s did not end in time", what)
        return False
    if not task.cancelled() and (error := task.exception()) is not None:
        if isinstance(error, OUTAGES):
            logger.warning("%s failed: %s", what, _reason(error))
        else:
            logger.error("%s failed", what, exc_info=error)
    return True


def _until(deadline: float) -> float | None:
    """Return the seconds until `deadline` (loop time); None, for no limit, if it is infinite."""
    left = deadline - asyncio.get_running_loop().time()
    return None if left == float("inf") else max(0.0, left)


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Retrieve a late task's exception; else asyncio reports it as never retrieved."""
    if not task.cancelled():
        task.exception()
