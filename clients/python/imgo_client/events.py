"""What a client tells its user besides messages."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("imgo_client")

Callback = Callable[[Any], object]


@dataclass(frozen=True)
class Ending:
    """How an attempt or a session ended. `delay`: seconds until the next attempt."""

    code: int
    reason: str
    will_reconnect: bool
    delay: float


class Events:
    """Callbacks by event, called in the order in which they were added.

    `state`: "connecting", "open", "waiting" for the next attempt, "closed". `open`: the body of
    the auth reply. `close`: an `Ending`. `error`: an exception; without a callback it is logged.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callback]] = {
            event: [] for event in ("state", "open", "close", "error")
        }

    def on(self, event: str, callback: Callback) -> None:
        """Raises ValueError for an unknown event, TypeError for a coroutine function."""
        if inspect.iscoroutinefunction(callback):
            raise TypeError("a callback is a plain function: let it create a task")
        self._of(event).append(callback)

    def off(self, event: str, callback: Callback) -> None:
        """Raises ValueError unless it was added before."""
        self._of(event).remove(callback)

    def _of(self, event: str) -> list[Callback]:
        if event not in self._callbacks:
            raise ValueError(f"there is no event {event!r}, only {', '.join(self._callbacks)}")
        return self._callbacks[event]

    def emit(self, event: str, value: Any) -> None:
        """Tell them. What one of them raises is an `error`."""
        for callback in tuple(self._of(event)):
            self._call(event, callback, value)

    def _call(self, event: str, callback: Callback, value: Any) -> None:
        try:
            callback(value)
        except Exception as error:
            if event == "error":
                logger.exception("a callback for errors failed")
            else:
                self.report(error)

    def report(self, error: Exception) -> None:
        """An `error`, which somebody must see."""
        if self._callbacks["error"]:
            self.emit("error", error)
        else:
            logger.warning("%s: %s", type(error).__name__, error)
