"""Which nodes count as dead."""

from push.presence.base import DEAD, GONE
from push.presence.reaper import BeatWatch

LEASE, GRACE, EVERY = 30.0, 3.0, 1.0


def watch() -> BeatWatch:
    return BeatWatch("me", LEASE, GRACE, EVERY)


def silence(found: BeatWatch, beats: dict[str, str], start: float = 100.0) -> float:
    """Seconds of rounds with the same beats until a node is dead; at most 100."""
    now = start
    while not found.dead(beats, now) and now < start + 100:
        now += EVERY
    return now - start


def test_a_node_whose_beat_stays_the_same_for_a_lease_is_dead():
    assert silence(watch(), {"a": "1"}) == LEASE


def test_a_node_that_beats_lives():
    found = watch()
    assert not any(found.dead({"a": str(n // 5)}, float(n)) for n in range(200))


def test_a_node_that_was_stopped_is_dead_after_the_grace():
    assert silence(watch(), {"a": GONE}) == GRACE


def test_a_node_that_another_has_condemned_is_dead_at_once():
    assert watch().dead({"a": DEAD}, 1.0) == ["a"]


def test_the_own_node_is_never_dead():
    assert silence(watch(), {"me": "1"}) == 100


def test_time_in_which_nothing_was_read_does_not_count():
    """A pause of Redis, or of this node: the others get the time to beat again."""
    found = watch()
    assert found.dead({"a": "1"}, 0.0) == []
    assert found.dead({"a": "1"}, 1_000.0) == []
    assert silence(found, {"a": "1"}, start=1_001.0) >= LEASE - 4 * EVERY


def test_a_clock_that_stands_still_makes_nobody_dead():
    found = watch()
    assert not any(found.dead({"a": "1"}, 5.0) for _ in range(100))
