"""What a key, a room and a number from outside may look like."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgo_site.errors import BadRequest
from imgo_site.names import NAME_MAX, check_name, check_number, matches_pattern

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("name", ["1", "ä/ö?&", "live://1000", "\U0001f600", " ", "x" * NAME_MAX])
def test_a_name_may_be_nearly_anything(name):
    assert check_name(name, "key") == name


@pytest.mark.parametrize(
    "name",
    ["", None, 7, b"x", [], True, "x" * (NAME_MAX + 1), "a\0", "\n", "a\x1fb", "\x7f", "\ud800"],
)
def test_a_bad_name_is_refused_and_called_what_it_is(name):
    with pytest.raises(BadRequest, match="A room "):
        check_name(name, "room")


@settings(deadline=None)
@given(ANYTHING)
def test_any_value_is_a_name_that_can_be_stored_or_a_bad_request(value):
    try:
        name = check_name(value, "key")
    except BadRequest:
        return
    assert name.encode().decode() == name
    assert "\0" not in name


NUMBERS = [(0, 0), (9, 9), ("0", 0), ("9", 9), ("007", 7), (5.0, 5), ("5.0", 5), ("5.00", 5)]


@pytest.mark.parametrize(("value", "number"), NUMBERS)
def test_a_number_may_be_decimal_text(value, number):
    assert check_number(value, "n", lowest=0, highest=9) == number


@pytest.mark.parametrize("value", ["-3", -3])
def test_a_number_may_be_negative_where_that_is_allowed(value):
    assert check_number(value, "n", lowest=-3, highest=0) == -3


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            "",
            " 1",
            "1 ",
            "1_0",
            "+1",
            "0x1",
            "1.5",
            1.5,
            "1.",
            "1e0",
            1e300,
            True,
            [1],
            b"1",
            "-1",
            -1,
            10,
        ),
        *("10", "\u0661", "1\n", "9" * 5000, 10**30),
    ],
)
def test_another_number_is_refused_with_its_limits(value):
    with pytest.raises(BadRequest, match="n must be a whole number from 0 to 9"):
        check_number(value, "n", lowest=0, highest=9)


@settings(deadline=None)
@given(ANYTHING | st.text("0123456789-", max_size=25))
def test_any_value_is_a_number_within_the_limits_or_a_bad_request(value):
    try:
        number = check_number(value, "n", lowest=-5, highest=10**6)
    except BadRequest:
        return
    assert type(number) is int
    assert -5 <= number <= 10**6


@settings(deadline=None)
@given(st.text("ab*", max_size=8), st.text("ab*", max_size=12))
def test_a_pattern_matches_as_fnmatch_does(pattern, name):
    assert matches_pattern(pattern, name) is fnmatchcase(name, pattern)


def seconds_to_refuse(size: int) -> float:
    """Return the CPU time for a pattern with `size` stars and a name that almost matches it."""
    pattern, name = "*-" * size + "*!*", "-" * 4 * size
    begin = time.process_time()
    for _ in range(5):
        assert not matches_pattern(pattern, name)
    return time.process_time() - begin


def test_a_patterns_time_grows_with_the_name_alone():
    # A name 8 times as long takes 8 times as long; a quadratic search takes 64 times.
    ratios = [seconds_to_refuse(40_000) / seconds_to_refuse(5_000) for _ in range(3)]
    assert min(ratios) < 24
