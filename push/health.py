"""Whether this process is ready: a node is when everything listens, an API process at once."""

from enum import Enum


class State(Enum):
    """Where a process is in its life."""

    READY = "ok"
    STARTING = "starting"
    STOPPING = "stopping"


_state = State.READY


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


def stopping() -> None:
    """A node is on its way out."""
    _set(State.STOPPING)
