"""Parts that a process has once."""

import os
import threading

import pytest

from imgo_site.process_parts import ProcessParts


class Part:
    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_parts_get_makes_a_part_once():
    parts = ProcessParts()
    part = parts.get(Part)
    assert parts.get(Part) is part


def test_parts_get_from_many_threads_makes_one_part():
    parts, barrier, made = ProcessParts(), threading.Barrier(8), []

    def get() -> None:
        barrier.wait()
        made.append(parts.get(Part))

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_parts_close_closes_users_before_what_they_use(caplog):
    parts, order = ProcessParts(), []

    class Used(Part):
        def close(self) -> None:
            order.append("used")

    class User:
        def __init__(self) -> None:
            parts.get(Used)

        def close(self) -> None:
            order.append("user")
            raise OSError("no answer")

    parts.get(User)
    parts.close()
    parts.close()
    assert order == ["user", "used"]
    assert "User could not be closed" in caplog.text


def test_parts_after_close_are_new():
    parts = ProcessParts()
    first = parts.get(Part)
    parts.close()
    assert first.is_closed
    assert parts.get(Part) is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_parts_in_forked_child_are_new_and_the_parents_stay_open():
    parts = ProcessParts()
    part = parts.get(Part)
    parts.renew()  # as in a child
    assert parts.get(Part) is not part
    parts.close()
    assert not part.is_closed
