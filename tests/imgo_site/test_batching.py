"""Many look-ups, one query; a failure reaches whom it concerns, and nobody else."""

import asyncio
import gc
import threading

import pytest

from imgo_site import batching
from imgo_site.batching import BatchLoader
from tests import eventually


class Fetch:
    """Answers keys with their length, counts its calls, and can be stopped or made to fail."""

    def __init__(self) -> None:
        self.batches = []
        self.error = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, keys):
        self.batches.append(keys)
        assert self.may_go_on.wait(10)
        if self.error is not None:
            raise self.error
        return {key: len(key) for key in keys if key}


@pytest.fixture
def fetch():
    return Fetch()


@pytest.fixture
def loader(fetch):
    return BatchLoader(fetch)


async def test_many_callers_share_one_call(loader, fetch):
    answers = await asyncio.gather(*(loader.get("x" * (n % 50 + 1)) for n in range(200)))
    assert answers == [n % 50 + 1 for n in range(200)]
    assert [len(batch) for batch in fetch.batches] == [50]


async def test_a_key_that_is_not_found_is_none(loader):
    assert await loader.get("") is None


async def test_a_later_caller_is_in_a_later_batch(loader, fetch):
    await loader.get("a")
    await loader.get("a")
    assert fetch.batches == [["a"], ["a"]]


async def test_a_full_batch_does_not_wait_for_the_window(loader, fetch, imgo, monkeypatch):
    imgo(LOADER_WINDOW=3600.0)
    monkeypatch.setattr(batching, "MAX_BATCH", 3)
    assert await asyncio.gather(*map(loader.get, ["a", "b", "c"])) == [1, 1, 1]
    assert fetch.batches == [["a", "b", "c"]]


class Threads:
    """Four threads that begin a call at once, and end it when they may."""

    size = 4

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def run(self, function, *args):
        self.begun += 1
        await self.may_end.wait()
        return function(*args)


@pytest.mark.parametrize("batches", [None, 1])
async def test_a_loader_of_one_batch_begins_no_second_one(fetch, imgo, monkeypatch, batches):
    imgo(LOADER_WINDOW=3600.0)
    monkeypatch.setattr(batching, "MAX_BATCH", 2)
    threads = Threads()
    loader = BatchLoader(fetch, threads, batches=batches)
    answers = [asyncio.create_task(loader.get(key)) for key in "abcdef"]
    await eventually(lambda: threads.begun)
    assert threads.begun == (batches or 3)
    threads.may_end.set()
    assert await asyncio.gather(*answers) == [1] * 6
    assert fetch.batches == [["a", "b"], ["c", "d"], ["e", "f"]]


async def test_an_error_reaches_every_caller_and_not_the_next(loader, fetch):
    fetch.error = LookupError("no luck")
    answers = await asyncio.gather(*map(loader.get, "abab"), return_exceptions=True)
    assert answers == [fetch.error] * 4
    fetch.error = None
    assert await loader.get("a") == 1


async def test_a_cancelled_caller_does_not_cancel_the_others(loader, fetch):
    fetch.may_go_on.clear()
    gone, stays = (asyncio.create_task(loader.get("a")) for _ in range(2))
    await eventually(lambda: fetch.batches)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    fetch.may_go_on.set()
    assert await stays == 1


async def test_an_error_nobody_waits_for_is_not_reported(loader, fetch, imgo, caplog):
    imgo(DATABASE_THREADS=1)  # one after the other
    fetch.error = LookupError("no luck")
    fetch.may_go_on.clear()
    gone = asyncio.create_task(loader.get("a"))
    await eventually(lambda: fetch.batches)
    gone.cancel()
    fetch.may_go_on.set()
    with pytest.raises(LookupError):
        await loader.get("b")
    del gone
    gc.collect()
    assert caplog.text == ""


async def test_loader_with_silent_database_keeps_no_stale_lookups(loader, fetch, imgo):
    imgo(DATABASE_THREADS=1)
    fetch.may_go_on.clear()
    first = asyncio.create_task(loader.get("a"))
    await eventually(lambda: fetch.batches)
    gone = [asyncio.create_task(loader.get(f"gone{n}")) for n in range(50)]
    stays = asyncio.create_task(loader.get("stays"))
    await asyncio.sleep(0.01)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    fetch.may_go_on.set()
    assert await asyncio.gather(first, stays) == [1, 5]
    assert fetch.batches == [["a"], ["stays"]]
