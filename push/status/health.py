"""Health of this process. A node is ready once all listeners listen, an API process at once."""

from collections.abc import Callable
from enum import Enum


class State(Enum):
    """State of a process, from its start to its end."""

    READY = "ok"
    STARTING = "starting"
    DRAINING = "draining"
    STOPPING = "stopping"


_state = State.READY
_watched: list[Callable[[], list[str]]] = []


def current() -> State:
    """Return the state of this process."""
    return _state


def _set(state: State) -> None:
    global _state  # noqa: PLW0603 - a process has one state
    _state = state


def starting() -> None:
    """Set the state of a starting node: not ready until `started`."""
    _set(State.STARTING)


def started() -> None:
    """Set the state of a node whose listeners listen: ready."""
    _set(State.READY)


def draining() -> None:
    """Set the state of a drained node, which accepts no sessions: alive, but not ready."""
    if _state is State.READY:
        _set(State.DRAINING)


def undrained() -> None:
    """Set the state of a node that accepts sessions again after a drain: ready."""
    if _state is State.DRAINING:
        _set(State.READY)


def stopping() -> None:
    """Set the state of a node that ends: neither alive nor ready."""
    _set(State.STOPPING)


def is_alive() -> bool:
    """Return whether the process serves, so that a restart is not needed."""
    return _state in {State.READY, State.DRAINING}


def watch(failing: Callable[[], list[str]]) -> None:
    """Register a function that returns the names of this process's repeatedly failing tasks."""
    _watched.append(failing)


def forget(failing: Callable[[], list[str]]) -> None:
    """Remove a function registered by `watch`."""
    if failing in _watched:
        _watched.remove(failing)


def failing() -> list[str]:
    """Return the names of this process's tasks that fail repeatedly."""
    return [name for one in _watched for name in one()]
