"""The owner of long-lived tasks: it restarts what fails, tells what goes on failing, and stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext, suppress

import pytest

from imgo_site.errors import Unavailable
from push.metrics import definitions as metrics
from push.node import runtime as module
from push.node.runtime import Runtime, finish
from tests import PATIENCE, eventually


@pytest.fixture
async def runtime(monkeypatch) -> AsyncIterator[Runtime]:
    monkeypatch.setattr(module, "BACKOFF", (0.01, 0.04))
    found = Runtime()
    yield found
    await found.stop(float("inf"))


class Work:
    """Fails as often as `errors` has something, each time with that, then lasts."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.lasts = asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            error = self.errors.pop(0)
            if error is not None:
                raise error
            return
        self.lasts.set()
        await asyncio.get_running_loop().create_future()


def restarts(name: str) -> float:
    return metrics.TASK_RESTARTS.labels(name)._value.get()


async def test_task_that_raises_is_logged_counted_and_restarted(runtime, caplog):
    work, before = Work(LookupError("a bug")), restarts("work")
    runtime.keep("work", work)
    await asyncio.wait_for(work.lasts.wait(), PATIENCE)
    assert work.calls == 2
    assert restarts("work") == before + 1
    (line,) = caplog.records
    assert line.getMessage() == "work failed; it is started again in 0.01 s"
    assert line.exc_info[0] is LookupError


async def test_task_that_returns_is_restarted(runtime, caplog):
    work = Work(None)
    runtime.keep("work", work)
    await asyncio.wait_for(work.lasts.wait(), PATIENCE)
    assert [line.getMessage() for line in caplog.records] == [
        "work ended; it is started again in 0.01 s"
    ]


async def test_task_is_failing_until_it_has_run_for_a_while(runtime, monkeypatch):
    monkeypatch.setattr(module, "HEALTHY_AFTER", 0.5)
    work = Work(*[LookupError("a bug")] * 4)
    runtime.keep("work", work)
    await asyncio.wait_for(work.lasts.wait(), PATIENCE)
    assert runtime.failing() == ["work"]
    await eventually(lambda: runtime.failing() == [])


async def test_task_pauses_longer_after_each_failure(runtime, caplog):
    work = Work(*[LookupError("a bug")] * 4)
    runtime.keep("work", work)
    await asyncio.wait_for(work.lasts.wait(), PATIENCE)
    pauses = [line.getMessage().rpartition(" in ")[2] for line in caplog.records]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]


async def test_repeated_job_goes_on_after_an_outage_and_a_bug(runtime, caplog):
    calls: list[int] = []

    async def job() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Unavailable("away")
        if len(calls) in (2, 3):
            assert runtime.failing() == []
            raise LookupError("a bug")
        if len(calls) == 4:
            assert runtime.failing() == ["job"]

    runtime.repeat("job", job, 0.001)
    await eventually(lambda: len(calls) >= 5)
    assert runtime.failing() == []
    away, bug, _ = caplog.records
    assert (away.levelname, away.exc_info) == ("WARNING", None)
    assert bug.exc_info[0] is LookupError


def stubborn(begun: asyncio.Event) -> Callable[..., object]:
    async def run() -> None:
        # The first time as `asyncio.wait_for` may, in Python 3.11.
        keeps = nullcontext() if begun.is_set() else suppress(asyncio.CancelledError)
        begun.set()
        with keeps:
            await asyncio.get_running_loop().create_future()

    return run


@pytest.mark.parametrize("how", ["keep", "repeat"])
async def test_task_whose_cancellation_was_swallowed_ends(runtime, how):
    begun = asyncio.Event()
    if how == "keep":
        runtime.keep("work", stubborn(begun))
    else:
        runtime.repeat("work", stubborn(begun), 0.0)
    await begun.wait()
    await asyncio.wait_for(runtime.stop(float("inf")), PATIENCE)


async def ignore_cancels(is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        with suppress(asyncio.CancelledError):
            await is_over.wait()


async def test_stop_leaves_a_task_that_ignores_it_behind(runtime, caplog):
    is_over = asyncio.Event()
    runtime.keep("work", lambda: ignore_cancels(is_over))
    await asyncio.sleep(0)
    await runtime.stop(asyncio.get_running_loop().time() + 0.05)
    assert "these tasks did not stop in time: work" in caplog.text
    is_over.set()


async def test_finish_does_not_wait_beyond_its_deadline(caplog):
    is_over = asyncio.Event()
    deadline = asyncio.get_running_loop().time() + 0.05
    assert not await finish(ignore_cancels(is_over), deadline, "this")
    assert caplog.messages == ["this did not end in time"]
    is_over.set()


async def test_finish_logs_an_outage_as_one_line_and_a_bug_with_traceback(caplog):
    later = asyncio.get_running_loop().time() + PATIENCE

    async def fail(error: Exception) -> None:
        raise error

    assert await finish(fail(Unavailable("away")), later, "this")
    assert await finish(fail(LookupError("a bug")), later, "that")
    first, second = caplog.records
    assert (first.getMessage(), first.exc_info) == ("this failed: away", None)
    assert (second.getMessage(), second.exc_info[0]) == ("that failed", LookupError)
