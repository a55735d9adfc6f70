"""The pace of one client: what it may send in a second, and what waits for the next."""

import asyncio

import pytest

from push.session.read_pace import ACKED_IDS_PER_SECOND, Pace, TimedPace, weigh
from push.wire import Frame, Op


@pytest.fixture(autouse=True)
def _ten_frames(imgo) -> None:
    imgo(MAX_FRAMES_PER_SECOND=10)


@pytest.mark.parametrize(
    ("frames", "ids", "is_over"),
    [(10, 0, False), (11, 0, True), (0, ACKED_IDS_PER_SECOND, False), (0, 2_001, True)],
)
def test_pace_over_either_budget_stops_reading(frames, ids, is_over):
    pace = Pace()
    pace.spend(frames, ids)
    assert pace.is_over is is_over


def test_pace_carries_what_a_read_brought_over_the_limit():
    pace = Pace()
    pace.spend(35)
    states = []
    while not pace.is_idle:
        states.append(pace.is_over)
        pace.renew()
    assert states == [True, True, True, False]


def test_acknowledgements_weigh_by_their_ids():
    frames = [Frame(1, Op.ACK, 1, body) for body in (b"[]", b"[1]", b'["1","2","3"]')]
    assert weigh([*frames, Frame(1, Op.HEARTBEAT, 1), Frame(1, Op.JOIN, 1, b"a,b")]) == (2, 5)


class Clock:
    """A loop's clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


async def test_timed_pace_waits_for_the_seconds_that_pay(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    pace = TimedPace()
    pace.spend(25)
    await pace.wait()
    assert clock.now == 102.0
    clock.now += 60
    pace.spend(10)
    await pace.wait()
    assert clock.now == 162.0
