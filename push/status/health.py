"""Whether this process is ready: a node is when everything listens, an API process at once."""

from collections.abc import Callable
from enum import Enum


class State(Enum):
    """Where a process is in its life."""

    READY = "ok"
    STARTING = "starting"
    DRAINING = "draining"
    STOPPING = "stopping"


_state = State.READY
_watched: list[Callable[[], list[str]]] = []


def current() -> State:
    """The state of this process."""
    return _state


def _set(state: State) -> None:
    global _state  # noqa: PLW0603 - a process has one state
    _state = state


def starting() -> None:
    """A node is on its way: not ready until `started`."""
    _set(State.STARTING)


def started() -> None:
    """Everything listens."""
    _set(State.READY)


def draining() -> None:
    """A node takes no more sessions, and stays: it lives, and is not ready."""
    if _state is State.READY:
        _set(State.DRAINING)


def undrained() -> None:
    """A node that was drained takes sessions again."""
    if _state is State.DRAINING:
        _set(State.READY)


def stopping() -> None:
    """A node is on its way out."""
    _set(State.STOPPING)


def is_alive() -> bool:
    """Return whether the process serves: what a restart could mend is not the case."""
    return _state in {State.READY, State.DRAINING}


def watch(failing: Callable[[], list[str]]) -> None:
    """Have readiness call `failing()` for tasks of this process that go on failing."""
    _watched.append(failing)


def forget(failing: Callable[[], list[str]]) -> None:
    """Undo `watch`."""
    if failing in _watched:
        _watched.remove(failing)


def failing() -> list[str]:
    """Return the names of the tasks of this process that go on failing."""
    return [name for one in _watched for name in one()]
