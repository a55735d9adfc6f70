"""The rate at which clients of a key publish, and permissions that are remembered."""

import pytest

from push.node.publish_limits import FORGET_EVERY, PERMISSION_AGE, PublishLimits


class Clock:
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("rate", [1, 3, 10, 1_000])
def test_rate_of_a_key_is_the_setting_after_a_burst_of_one_second(clock, imgo, rate):
    imgo(MAX_PUBLISHES_PER_SECOND=rate)
    limits = PublishLimits(clock)
    assert [limits.admits("u1") for _ in range(rate + 2)] == [True] * rate + [False] * 2
    assert limits.admits("u2")
    clock.now += 1.001 / rate
    assert [limits.admits("u1") for _ in range(2)] == [True, False]
    clock.now += 60
    assert sum(limits.admits("u1") for _ in range(3 * rate)) == rate


def test_rate_without_a_limit_admits_everything(clock, imgo):
    imgo(MAX_PUBLISHES_PER_SECOND=0)
    limits = PublishLimits(clock)
    assert all(limits.admits("u1") for _ in range(1_000))


def test_permission_is_remembered_for_its_session_and_room_for_a_while(clock):
    limits = PublishLimits(clock)
    limits.remember("s1", "r1", is_allowed=True)
    limits.remember("s1", "r2", is_allowed=False)
    asked = [("s1", "r1"), ("s1", "r2"), ("s2", "r1")]
    assert [limits.permission(*one) for one in asked] == [True, False, None]
    clock.now += PERMISSION_AGE
    assert [limits.permission(*one) for one in asked] == [None] * 3


def test_limits_forget_idle_keys_and_old_permissions(clock):
    limits = PublishLimits(clock)
    for number in range(100):
        limits.admits(f"u{number}")
        limits.remember(f"s{number}", "r", is_allowed=True)
    clock.now += FORGET_EVERY + PERMISSION_AGE
    limits.admits("u1")
    assert (len(limits._until), len(limits._permissions)) == (1, 0)
