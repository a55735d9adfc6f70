"""The history checker finds each kind of violation, and nothing where there is none."""

import itertools
from collections.abc import Callable
from math import inf

import pytest

from .history import History, Push, Session


class Story:
    """Tells a history in few words; each step is one second."""

    def __init__(self) -> None:
        seconds = itertools.count()
        self.history = History(clock=lambda: float(next(seconds)))
        self._numbers: dict[str, int] = {}
        self._ids = itertools.count(1)

    def push(self, *keys: str, status: int | None = 202, is_unknown: bool = False) -> Push:
        for key in keys:
            self._numbers[key] = self._numbers.get(key, -1) + 1
        numbers = {key: self._numbers[key] for key in keys}
        push = self.history.attempt(f"to {numbers}", numbers)
        if status is None or not 200 <= status < 300:
            self.history.answer(push, push.started, status, is_unknown=is_unknown)
        else:
            self.history.answer(push, push.started, status, next(self._ids))
        return push

    def session(self, key: str = "k", device: str = "phone") -> Session:
        return self.history.opened(device, key)

    def receive(self, session: Session, *pushes: Push, ids: bool = True) -> None:
        for push in pushes:
            self.history.received(session, push.body, push.id if ids else 0)

    @property
    def violations(self) -> dict[str, int]:
        return self.history.check().violations


@pytest.fixture
def story() -> Story:
    return Story()


def test_all_received_once_is_fine(story: Story) -> None:
    phone, other = story.session(), story.session("l", "tablet")
    pushes = [story.push("k"), story.push("k", "l"), story.push("l")]
    story.receive(phone, *pushes[:2])
    story.receive(other, *pushes[1:], ids=False)
    result = story.history.check()
    assert result.violations == {}
    assert (result.accepted, result.delivered, result.duplicates) == (4, 4, 0)
    assert (result.refused, result.unknown) == (0, 0)
    assert story.history.waiting == []


def test_received_by_nobody_is_lost(story: Story) -> None:
    phone = story.session()
    first, second = story.push("k"), story.push("k")
    story.receive(phone, first)
    story.history.closed(phone)
    assert story.history.waiting == [("k", second.body)]
    result = story.history.check()
    assert (result.violations, result.delivered) == ({"lost": 1}, 1)
    assert "received by nobody" in result.details["lost"][0]


def test_lost_for_one_key_of_several(story: Story) -> None:
    phone, _ = story.session("k"), story.session("l", "tablet")
    story.receive(phone, story.push("k", "l"))
    assert story.violations == {"lost": 1}


def test_missed_by_a_session_that_stayed_is_lost(story: Story) -> None:
    phone, _tablet = story.session(), story.session(device="tablet")
    story.receive(phone, story.push("k"))
    result = story.history.check()
    assert result.violations == {"lost": 1}
    assert "tablet" in result.details["lost"][0]


def test_a_session_that_went_or_came_later_need_not_have_it(story: Story) -> None:
    phone, gone = story.session(), story.session(device="tablet")
    push = story.push("k")
    story.receive(phone, push)
    story.history.closed(gone)
    story.session(device="tablet")
    assert story.violations == {}


def test_what_came_back_in_the_next_session_is_not_lost(story: Story) -> None:
    before = story.session()
    push = story.push("k")
    story.history.closed(before)
    story.receive(story.session(), push)
    assert story.violations == {}


def test_never_pushed_is_unexpected(story: Story) -> None:
    story.history.received(story.session(), "from nowhere", 7)
    assert story.violations == {"unexpected": 1}


@pytest.mark.parametrize(
    ("status", "expected"),
    [(None, {}), (500, {}), (503, {"contradicted": 1}), (0, {"contradicted": 1})],
)
def test_an_answer_that_nothing_was_accepted_must_be_true(
    story: Story, status: int | None, expected: dict[str, int]
) -> None:
    phone = story.session()
    push = story.push("k", status=status)
    story.history.received(phone, push.body, 9)
    result = story.history.check()
    assert result.violations == expected
    assert (result.refused, result.unknown) == ((1, 0) if expected else (0, 1))


@pytest.mark.parametrize("arrives", [True, False])
def test_push_answered_as_unknown_may_arrive_or_not(story: Story, arrives: bool) -> None:
    phone = story.session()
    push = story.push("k", status=503, is_unknown=True)
    if arrives:
        story.history.received(phone, push.body, 9)
    result = story.history.check()
    assert result.violations == {}
    assert (result.refused, result.unknown, result.declared_unknown) == (0, 1, 1)


def test_retry_refused_after_an_unknown_answer_stays_unknown(story: Story) -> None:
    phone = story.session()
    push = story.push("k", status=503, is_unknown=True)
    story.history.answer(push, 0.0, 503)
    story.history.received(phone, push.body, 9)
    assert story.violations == {}


def test_refused_and_unknown_need_not_arrive(story: Story) -> None:
    story.session()
    story.push("k", status=503)
    story.push("k", status=None)
    result = story.history.check()
    assert (result.violations, result.refused, result.unknown) == ({}, 1, 1)
    assert story.history.waiting == []


def test_a_retry_that_is_accepted_counts_as_accepted(story: Story) -> None:
    phone = story.session()
    push = story.push("k", status=None)
    story.history.answer(push, 0.0, 202, 5)
    assert story.violations == {"lost": 1}
    story.history.received(phone, push.body, 5)
    assert story.violations == {}


def test_a_foreign_key_is_told(story: Story) -> None:
    phone, stranger = story.session(), story.session("l", "tablet")
    push = story.push("k")
    story.receive(phone, push)
    story.receive(stranger, push)
    assert story.violations == {"foreign": 1}


def test_out_of_order_by_first_receipt(story: Story) -> None:
    phone = story.session()
    first, second, third = (story.push("k") for _ in range(3))
    story.receive(phone, second, first, third)
    assert story.violations == {"out_of_order": 1}


def test_out_of_order_across_sessions_of_a_device(story: Story) -> None:
    phone = story.session()
    first, second = story.push("k"), story.push("k")
    story.receive(phone, second)
    story.history.closed(phone)
    story.receive(story.session(), first)
    assert story.violations == {"out_of_order": 1}


def test_a_second_copy_is_not_out_of_order_and_unknown_ones_have_no_order(story: Story) -> None:
    phone = story.session()
    first, second = story.push("k"), story.push("k")
    unknown, third = story.push("k", status=None), story.push("k")
    story.receive(phone, first, second)
    story.history.closed(phone)
    again = story.session()
    story.receive(again, first, second, third, unknown)
    result = story.history.check()
    assert (result.violations, result.duplicates) == ({}, 2)


def test_each_device_has_its_own_order(story: Story) -> None:
    phone, tablet = story.session(), story.session(device="tablet")
    first, second = story.push("k"), story.push("k")
    story.receive(phone, first, second)
    story.receive(tablet, second, first)
    assert story.violations == {"out_of_order": 1}


def test_twice_in_one_session_is_told(story: Story) -> None:
    phone = story.session()
    push = story.push("k")
    story.receive(phone, push, push)
    result = story.history.check()
    assert (result.violations, result.duplicates) == ({"doubled": 1}, 1)


def test_copies_with_another_id_are_told(story: Story) -> None:
    phone = story.session()
    push = story.push("k")
    story.receive(phone, push)
    story.history.closed(phone)
    story.history.received(story.session(), push.body, push.id + 1)
    assert story.violations == {"other_id": 1}


def test_copies_of_an_unanswered_push_have_one_id_too(story: Story) -> None:
    push = story.push("k", status=None)
    phone = story.session()
    story.history.received(phone, push.body, 4)
    story.history.closed(phone)
    story.history.received(story.session(), push.body, 5)
    assert story.violations == {"other_id": 1}


def test_a_window_has_its_own_pushes_and_every_stranger(story: Story) -> None:
    phone = story.session()
    early = story.push("k")
    middle = story.history.clock()
    late = story.push("k")
    story.receive(phone, late)
    story.history.received(phone, "from nowhere")
    check = story.history.check
    assert check(end=middle).violations == {"lost": 1, "unexpected": 1}
    assert check(start=middle).violations == {"unexpected": 1}
    assert check(start=middle).accepted == 1
    assert early.started < middle < late.started


def test_only_the_first_offenders_are_shown(story: Story) -> None:
    for _ in range(20):
        story.push("k")
    result = story.history.check()
    assert (result.lost, len(result.details["lost"])) == (20, 5)
    assert str(result).count("received by nobody") == 5


def test_recovery_is_the_arrival_of_the_first_push_after_the_fault(story: Story) -> None:
    history, phone = story.history, story.session()
    before = story.push("k")
    end = history.clock()
    assert (history.recovery(end), history.caught_up(end)) == (inf, inf)
    after = story.push("k")
    assert history.recovery(end) == inf
    story.receive(phone, before, after)
    assert history.recovery(end) == history.arrived(after) - end
    assert history.caught_up(end) == history.arrived(before) - end > 0
    assert history.caught_up(history.clock()) == 0


def test_delay_is_the_median_of_a_time(story: Story) -> None:
    phone = story.session()
    early, at_once, slow, lost = (story.push("k") for _ in range(4))
    story.receive(phone, at_once, slow)
    delays = [story.history.arrived(push) - push.accepted for push in (at_once, slow)]
    start, end = at_once.accepted, lost.accepted
    assert story.history.delay(start, end) == sum(delays) / 2
    assert story.history.delay(early.accepted, inf) == inf
    assert story.history.delay(inf, inf) == 0.0


def test_a_body_is_pushed_once(story: Story) -> None:
    story.push("k")
    attempt: Callable[..., Push] = story.history.attempt
    with pytest.raises(AssertionError, match="pushed before"):
        attempt("to {'k': 0}", {"k": 1})
