"""The database's time in a node."""

import time

import pytest

from imgo_site import database_clock as module
from imgo_site.database_clock import DatabaseClock, Reading, boot_time, read_database_time
from imgo_site.errors import Unavailable


@pytest.fixture
def boot(monkeypatch):
    """Sets the seconds since the host was started."""

    def set_boot_time(seconds: float) -> None:
        monkeypatch.setattr(module, "boot_time", lambda: seconds)

    set_boot_time(1_000.0)
    return set_boot_time


def test_clock_without_a_reading_is_unavailable():
    with pytest.raises(Unavailable):
        DatabaseClock().now()


def test_clock_runs_on_from_its_reading_whatever_the_host_says(boot, monkeypatch):
    clock = DatabaseClock()
    clock.take(Reading(5_000.0, 999.0, 1_000.0))
    assert clock.now() == 5_000.5  # it was 5,000 half-way between question and answer
    monkeypatch.setattr(time, "time", lambda: 0.0)
    boot(1_060.0)
    assert clock.now() == 5_060.5


def test_clock_follows_the_last_reading(boot):
    clock = DatabaseClock()
    clock.take(Reading(5_000.0, 1_000.0, 1_000.0))
    clock.take(Reading(9_000.0, 1_000.0, 1_000.2))
    assert clock.now() == pytest.approx(8_999.9)


def test_slow_reading_counts_only_if_there_is_no_better_one(boot):
    slow = Reading(9_000.0, 1_000.0, 1_010.0)
    clock = DatabaseClock()
    clock.take(slow)
    assert clock.now() == 8_995.0
    clock.take(Reading(5_000.0, 1_000.0, 1_000.0))
    clock.take(slow)
    assert clock.now() == 5_000.0
    clock.take(Reading(9_000.0, 1_060.0, 1_070.0))  # a minute later it may be another database
    assert clock.now() == 8_935.0


@pytest.mark.django_db
@pytest.mark.any_database
def test_reading_is_the_databases_time():
    before = time.time()
    reading = read_database_time()
    assert before - 1 < reading.unix < time.time() + 1
    assert reading.begin <= reading.end <= boot_time()
