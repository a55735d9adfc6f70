"""The keys of a node that the database does not know yet."""

import random

import pytest

from accounts.staff import KEY_START
from push.online.local_keys import MARGIN, LocalKeys

from .conftest import event

GRACE = 3.0 + MARGIN


@pytest.fixture
def keys(imgo) -> LocalKeys:
    imgo(EVENT_KEYS=["user-*", "shop"], PRESENCE_GRACE=3.0)
    return LocalKeys()


def test_only_matching_keys_are_inserted_once_with_their_first_opening(keys):
    first = event(session="s1")
    for key in ("user-1", "shop", "other", f"{KEY_START}user-"):
        keys.opened(key, first)
    keys.opened("user-1", event(session="s2"))
    assert keys.unwritten == 2
    assert keys.take_new(10) == {"user-1": first, "shop": first}
    keys.opened("user-1", event(session="s3"))
    assert keys.take_new(10) == {}
    keys.closed("other", event(), 0.0)
    assert keys.take_gone(10, 100.0) == {}


def test_pattern_of_all_keys_leaves_the_dashboard_out(imgo):
    imgo(EVENT_KEYS=["*"])
    keys = LocalKeys()
    keys.opened(f"{KEY_START}1", event())
    assert keys.unwritten == 0


def test_key_is_removed_after_the_grace_of_its_last_session(keys):
    keys.opened("user-1", event())
    keys.opened("user-1", event())
    keys.take_new(10)
    keys.closed("user-1", event(session="a"), 1.0)
    assert keys.take_gone(10, 100.0) == {}
    last = event(session="b")
    keys.closed("user-1", last, 2.0)
    assert keys.take_gone(10, 2.0 + GRACE - 0.01) == {}
    assert [one.event for one in keys.take_gone(10, 2.0 + GRACE).values()] == [last]
    assert keys.take_gone(10, 100.0) == {}


def test_key_that_comes_back_within_the_grace_causes_nothing(keys):
    keys.opened("user-1", event())
    keys.take_new(10)
    keys.closed("user-1", event(), 0.0)
    keys.opened("user-1", event())
    assert keys.take_new(10) == {}
    assert keys.take_gone(10, 100.0) == {}


def test_key_that_comes_back_while_it_is_removed_is_inserted_again(keys):
    keys.opened("user-1", event())
    keys.take_new(10)
    keys.closed("user-1", event(), 0.0)
    assert keys.take_gone(10, GRACE)
    keys.opened("user-1", event(session="s2"))
    assert list(keys.take_new(10)) == ["user-1"]


def test_failed_removal_of_a_key_that_is_back_is_not_repeated(keys):
    keys.opened("user-1", event())
    keys.take_new(10)
    keys.closed("user-1", event(), 0.0)
    gone = keys.take_gone(10, GRACE)
    keys.opened("user-1", event())
    keys.put_back_gone(gone)
    assert keys.take_gone(10, 100.0) == {}
    assert list(keys.take_new(10)) == ["user-1"]  # the removal may have been made


def test_failed_writes_are_repeated(keys):
    keys.opened("user-1", event())
    new = keys.take_new(10)
    keys.put_back_new(new)
    assert keys.take_new(10) == new
    keys.closed("user-1", event(), 0.0)
    gone = keys.take_gone(10, GRACE)
    keys.put_back_gone(gone)
    assert keys.take_gone(10, GRACE) == gone


def test_all_keys_but_those_due_to_go_are_inserted_under_a_new_lease(keys):
    for name in ("user-1", "user-2", "user-3"):
        keys.opened(name, event())
    keys.take_new(10)
    keys.closed("user-2", event(session="late"), 50.0)
    keys.closed("user-3", event(), 0.0)
    again = event(session="again")
    keys.insert_all_again({"user-1": again}, 51.0)
    new = keys.take_new(10)
    assert new["user-1"] is again
    assert new["user-2"].session == "late"
    assert "user-3" not in new
    assert list(keys.take_gone(10, 100.0)) == ["user-2"]


class Story:
    """Sessions that come and go at random, and the rows that the writes leave."""

    def __init__(self, keys: LocalKeys, dice: random.Random) -> None:
        self.names = [f"user-{number}" for number in range(4)]
        self.rows: set[str] = set()
        self.now = 0.0
        self._keys = keys
        self._dice = dice
        self._sessions = dict.fromkeys(self.names, 0)

    @property
    def there(self) -> set[str]:
        return {key for key, count in self._sessions.items() if count}

    def come(self) -> None:
        name = self._dice.choice(self.names)
        self._sessions[name] += 1
        self._keys.opened(name, event())

    def go(self) -> None:
        if self.there:
            name = self._dice.choice(sorted(self.there))
            self._sessions[name] -= 1
            self._keys.closed(name, event(), self.now)

    def lose_lease(self) -> None:
        self.rows.clear()
        self._keys.insert_all_again({key: event() for key in self.there}, self.now)

    def write(self) -> None:
        while new := self._keys.take_new(2):
            self.rows.update(new)
        while gone := self._keys.take_gone(2, self.now):
            if self._dice.random() < 0.3:
                self.come()  # while they are being removed
            self.rows.difference_update(gone)
        while new := self._keys.take_new(2):
            self.rows.update(new)

    def fail_to_write(self) -> None:
        """Fail, with a change that was made, or was not."""
        new = self._keys.take_new(2)
        gone = {} if new else self._keys.take_gone(2, self.now)
        if self._dice.random() < 0.3:
            self.come()
        if self._dice.random() < 0.5:
            self.rows.update(new)
            self.rows.difference_update(gone)
        self._keys.put_back_new(new)
        self._keys.put_back_gone(gone)


def test_random_comings_and_goings_end_with_what_is_true(keys):
    """With failing writes and lost leases, the rows become those of the keys that are there."""
    dice = random.Random(7)
    story = Story(keys, dice)
    steps = [story.come, story.go, story.write, story.fail_to_write, story.lose_lease]
    for number in range(5_000):
        story.now += dice.random()
        dice.choices(steps, [30, 30, 10, 10, 2])[0]()
        if number % 50 == 0:
            for _ in range(2):
                story.now += 2 * GRACE
                story.write()
            assert story.rows == story.there
