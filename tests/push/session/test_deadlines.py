"""Deadlines that share a timer."""

import asyncio

from push.session.deadlines import Deadlines


async def test_deadlines_expire_in_order_except_cancelled_ones():
    expired: asyncio.Queue[str] = asyncio.Queue()
    expiries = {name: lambda name=name: expired.put_nowait(name) for name in "abcd"}
    deadlines = Deadlines(asyncio.get_running_loop(), 0.01)
    for name in "abc":
        deadlines.begin(expiries[name])
    deadlines.cancel(expiries["a"])  # the one that the timer waits for
    assert [await expired.get(), await expired.get()] == ["b", "c"]
    deadlines.begin(expiries["d"])  # when no timer was left
    assert await expired.get() == "d"


async def test_deadlines_error_of_one_does_not_keep_the_others(caplog):
    expired = asyncio.Event()
    deadlines = Deadlines(asyncio.get_running_loop(), 0.0)

    def fail() -> None:
        raise RuntimeError("broken")

    deadlines.begin(fail)
    deadlines.begin(expired.set)
    await expired.wait()
    assert "broken" in caplog.text
