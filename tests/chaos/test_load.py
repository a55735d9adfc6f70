"""What a load tells of the time after a fault."""

from math import inf
from typing import Any, cast

from .history import History, Push
from .load import Load, Plan


def accept(history: History) -> Push:
    """A push to one key that is accepted, and not received."""
    push = history.attempt(f"{len(history.pushes)}", {"k": len(history.pushes)})
    history.answer(push, push.started, 202, 1)
    return push


def test_load_is_caught_up_with_keys_and_rooms_with_history() -> None:
    load = Load(cast("Any", None), Plan(devices=2, pushers=1))
    pushes = [(history, accept(history)) for history in (load.history, load.kept)]
    accept(load.rooms)  # live only
    end = load.history.clock()
    for history, push in pushes:
        assert load.caught_up(end) == inf
        history.received(history.opened("phone", "k"), push.body, push.id)
    assert load.caught_up(end) == load.kept.last_receipt - end
