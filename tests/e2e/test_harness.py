"""The check that every test makes of the logs finds what it is there for."""

from pathlib import Path

import pytest

from tests import eventually, wait_until

from .harness import Logs


def test_a_traceback_is_found_once(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("fine\n")
    logs = Logs()
    logs.watch(log)
    assert logs.complaints() == []
    with log.open("a") as file:
        file.write("Traceback (most recent call last):\n")
    (complaint,) = logs.complaints()
    assert "node.log has a traceback" in complaint
    assert logs.complaints() == []


def test_a_secret_is_found_in_a_log_but_not_in_the_greeting(tmp_path: Path) -> None:
    log, greeting = tmp_path / "node.log", tmp_path / "node.out"
    for file in (log, greeting):
        file.write_text("the token is abcdefgh")
    logs = Logs()
    logs.watch(log, greeting)
    logs.forbid("abcdefgh")
    logs.forbid(b"toke")  # too short to tell
    assert logs.complaints() == ["node.log shows b'abcdefgh'"]


async def test_waiting_ends_with_the_answer_or_fails() -> None:
    answers = iter([0, 0, 7, 0])
    assert wait_until(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match=r"still 0 after 0\.05 s"):
        await eventually(lambda: 0, timeout=0.05)
