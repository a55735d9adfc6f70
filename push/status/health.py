"""Health of an instance. A node is ready once all listeners listen, an API process at once."""

from collections.abc import Callable
from enum import Enum


class State(Enum):
    """State of an instance, from its start to its end."""

    READY = "ok"
    STARTING = "starting"
    DRAINING = "draining"
    STOPPING = "stopping"


class Health:
    """State of one instance, and its repeatedly failing tasks."""

    def __init__(self) -> None:
        self.state = State.READY
        self._watched: list[Callable[[], list[str]]] = []

    def starting(self) -> None:
        """Set the state of a starting node: not ready until `started`."""
        self.state = State.STARTING

    def started(self) -> None:
        """Set the state of a node whose listeners listen: ready."""
        self.state = State.READY

    def draining(self) -> None:
        """Set the state of a drained node, which accepts no sessions: alive, but not ready."""
        if self.state is State.READY:
            self.state = State.DRAINING

    def undrained(self) -> None:
        """Set the state of a node that accepts sessions again after a drain: ready."""
        if self.state is State.DRAINING:
            self.state = State.READY

    def stopping(self) -> None:
        """Set the state of a node that ends: neither alive nor ready."""
        self.state = State.STOPPING

    @property
    def is_alive(self) -> bool:
        """Whether the instance serves, so that a restart is not needed."""
        return self.state in {State.READY, State.DRAINING}

    def watch(self, failing: Callable[[], list[str]]) -> None:
        """Register a function that returns the names of repeatedly failing tasks."""
        self._watched.append(failing)

    def forget(self, failing: Callable[[], list[str]]) -> None:
        """Remove a function registered by `watch`."""
        if failing in self._watched:
            self._watched.remove(failing)

    def failing(self) -> list[str]:
        """Return the names of the instance's tasks that fail repeatedly."""
        return [name for failing in self._watched for name in failing()]
