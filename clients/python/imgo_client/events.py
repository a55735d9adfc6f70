"""Callbacks for the events of a client and of its rooms."""

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

    `state`: "connecting", "open", "waiting" for the next attempt, "closed". `open`: the body of the
    auth reply. `close`: an `Ending`; without a callback, a refusal is logged. `error`: an
    exception; without a callback it is logged.
    `retracted`: a list of ids, of messages that were cancelled. `read`: a list of ids, of messages
    that another device of the key has acknowledged.
    """

    names: tuple[str, ...] = ("state", "open", "close", "error", "retracted", "read")

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callback]] = {event: [] for event in self.names}
        self._logged: tuple[int, str] | None = None  # code and reason of the last refusal

    def on(self, event: str, callback: Callback) -> None:
        """Add a callback.

        Raises ValueError for an unknown event, TypeError for a coroutine function.
        """
        if inspect.iscoroutinefunction(callback):
            raise TypeError("a callback is a plain function: let it create a task")
        self._of(event).append(callback)

    def off(self, event: str, callback: Callback) -> None:
        """Remove a callback. Raises ValueError unless it was added before."""
        self._of(event).remove(callback)

    def _of(self, event: str) -> list[Callback]:
        if event not in self._callbacks:
            raise ValueError(f"there is no event {event!r}, only {', '.join(self._callbacks)}")
        return self._callbacks[event]

    def log_refusal(self, ending: Ending) -> None:
        """Log that the server has refused a session, unless the last refusal was the same.

        A client whose token is wrong tries again for ever, because the next one may be right.
        """
        refusal = (ending.code, ending.reason)
        if not self._callbacks["close"] and refusal != self._logged:
            self._logged = refusal
            text = "the server refuses the session, the client goes on trying: %s (%d)"
            logger.warning(text, ending.reason, ending.code)

    def emit(self, event: str, value: Any) -> None:
        """Call the callbacks of an event. An exception of a callback becomes an `error`."""
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
        """Emit an `error`; log it if it has no callback."""
        if self._callbacks["error"]:
            self.emit("error", error)
        else:
            logger.warning("%s: %s", type(error).__name__, error)


async def call(function: Callback, value: Any, report: Callable[[Exception], None]) -> bool:
    """Call a plain or async function; pass its exception to `report`.

    Return whether it succeeded.
    """
    try:
        answer = function(value)
        if inspect.isawaitable(answer):
            await answer
    except Exception as error:  # noqa: BLE001 - whatever it raises
        report(error)
        return False
    return True


class PresenceEvents(Events):
    """Callbacks for the members of a room. Errors go to the client's callbacks.

    `join`, `leave`: a `Member`. `change`: a `Changed`, a member with new info. `update`: the
    `Presence`, after its list or count has changed; once after all these events.
    """

    names = ("join", "leave", "change", "update")

    def __init__(self, report: Callable[[Exception], None]) -> None:
        super().__init__()
        self._report = report

    def report(self, error: Exception) -> None:
        """Report an `error` of the client."""
        self._report(error)


class RoomEvents(Events):
    """Callbacks of a room. Errors go to the client's callbacks.

    `state`: "joining", "joined", "left", "refused". `recovered`: a `Recovered`. `gap`: a `Gap`.
    """

    names = ("state", "recovered", "gap")

    def __init__(self, report: Callable[[Exception], None]) -> None:
        super().__init__()
        self._report = report

    def on(self, event: str, callback: Callback) -> None:
        """Add a callback.

        Raises ValueError for an unknown event, TypeError for a coroutine function of `state`.
        """
        if event == "state":
            super().on(event, callback)
        else:
            self._of(event).append(callback)

    async def tell(self, event: str, value: Any) -> None:
        """Call the callbacks one after the other, and await the coroutine functions."""
        for callback in tuple(self._of(event)):
            await call(callback, value, self.report)

    def report(self, error: Exception) -> None:
        """Report an `error` of the client."""
        self._report(error)
