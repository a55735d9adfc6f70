"""Tests that share expensive fixtures begin the share of one process."""

import pytest

from tests.process_groups import arrange

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("tests", "processes", "arranged"),
    [
        ("a.b.c.d.", 4, "a.b.c.d."),
        ("d.ccba..", 4, "a.b.ccd."),
        ("...aaab.", 2, "aaa.b..."),
        ("abcd....", 2, "ac..bd.."),
        ("aaaaab..", 2, "aaaaab.."),
        ("", 2, ""),
    ],
)
def test_each_share_of_a_process_begins_with_its_group(
    tests: str, processes: int, arranged: str
) -> None:
    groups = {letter: number for number, letter in enumerate("abcd")}
    assert "".join(arrange(tests, groups.get, processes)) == arranged
