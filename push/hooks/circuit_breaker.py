"""Circuit breaker: stops calls to a backend that keeps failing, and tries it again later."""

import time
from collections.abc import Callable

FAILURES = 5  # consecutive failures after which calls stop
PAUSE = (1.0, 30.0)  # seconds until a trial: the first pause, the longest


class CircuitBreaker:
    """State of one backend: closed (calls pass), open (none passes), half-open (one trial).

    `clock`: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause = PAUSE[0]
        self._trial_at = 0.0

    @property
    def is_open(self) -> bool:
        """Return whether the backend failed so often that most calls are not made."""
        return self._failures >= FAILURES

    def may_call(self) -> bool:
        """Return whether a call may be made now. While open, one call per pause may."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._trial_at:
            return False
        self._trial_at = now + self._pause  # the next trial, if this one does not succeed
        return True

    def succeeded(self) -> None:
        """Close the circuit."""
        self._failures = 0
        self._pause = PAUSE[0]

    def failed(self) -> None:
        """Count a failure; the pause grows with each failed trial."""
        self._failures += 1
        if self._failures < FAILURES:
            return
        if self._failures > FAILURES:
            self._pause = min(2 * self._pause, PAUSE[1])
        self._trial_at = self._clock() + self._pause
