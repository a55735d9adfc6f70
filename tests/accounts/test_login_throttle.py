"""Who guesses tokens is slowed down; who shares the address is not locked out."""

import asyncio

import pytest

from accounts import login_throttle as module
from accounts.login_throttle import LoginThrottle
from imgo_site.errors import TooManyAttempts

HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The waits that were asked for; none of them takes any time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return found


async def test_who_has_not_failed_too_often_does_not_wait(imgo, waits):
    imgo(AUTH_FAILURES=3)
    guard = LoginThrottle()
    for _ in range(3):
        await guard.admit(HERE)
        guard.failed(HERE)
    assert waits == []


async def test_who_has_waits_before_the_token_is_looked_at(imgo, waits):
    imgo(AUTH_FAILURES=2)
    guard = LoginThrottle()
    for _ in range(2):
        guard.failed(HERE)
    await guard.admit(HERE)
    await guard.admit(THERE)
    assert waits == [module.DELAY]


async def test_after_a_minute_it_is_forgotten(imgo, waits, monkeypatch):
    imgo(AUTH_FAILURES=1)
    guard = LoginThrottle()
    guard.failed(HERE)
    now = module.time.monotonic() + module.WINDOW + 1
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    await guard.admit(HERE)
    assert waits == []


async def test_only_so_many_of_one_address_may_wait(imgo, monkeypatch):
    imgo(AUTH_FAILURES=1)
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    monkeypatch.setattr(module, "DELAY", 3600.0)
    guard = LoginThrottle()
    guard.failed(HERE)
    waiting = [asyncio.create_task(guard.admit(HERE)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyAttempts):
        await guard.admit(HERE)
    await guard.admit(THERE)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    another = asyncio.create_task(guard.admit(HERE))  # there is room again
    await asyncio.sleep(0)
    assert not another.done()
    another.cancel()


async def test_the_limit_can_be_turned_off(imgo, waits):
    imgo(AUTH_FAILURES=0)
    guard = LoginThrottle()
    for _ in range(1000):
        guard.failed(HERE)
    await guard.admit(HERE)
    assert waits == []


@pytest.mark.parametrize(
    ("failing", "limited", "free"),
    [
        ("2001:db8:0:7::1", "2001:db8:0:7:ffff:ffff:ffff:ffff", "2001:db8:0:8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe80:0:0:1::1"),
        ("not:an:address", "not:an:address", "not:another"),
    ],
)
async def test_guard_counts_ipv6_by_its_64(imgo, waits, failing, limited, free):
    imgo(AUTH_FAILURES=1)
    guard = LoginThrottle()
    guard.failed(failing)
    await guard.admit(free)
    assert waits == []
    await guard.admit(limited)
    assert waits == [module.DELAY]


def test_guard_admits_one_attempt_a_second_that_cannot_wait(imgo, monkeypatch):
    imgo(AUTH_FAILURES=1)
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    guard = LoginThrottle()
    for _ in range(3):
        guard.admit_at_once(HERE)
    guard.failed(HERE)
    guard.admit_at_once(HERE)
    for _ in range(3):
        with pytest.raises(TooManyAttempts):
            guard.admit_at_once(HERE)
    guard.admit_at_once(THERE)
    now += module.DELAY
    guard.admit_at_once(HERE)


def test_no_more_addresses_are_remembered_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(module, "ADDRESSES_MAX", 3)
    guard = LoginThrottle()
    for n in range(5):
        guard.failed(f"192.0.2.{n}")
    assert list(guard._failures) == [f"192.0.2.{n}" for n in (2, 3, 4)]
