"""How long to wait before the next attempt."""

from __future__ import annotations

import random


def check_pauses(pauses: tuple[float, float]) -> tuple[float, float]:
    """`pauses` if they are a shortest and a longest one in seconds; raises ValueError."""
    shortest, longest = pauses
    if not 0 < shortest <= longest < float("inf"):
        raise ValueError(f"a back-off has a shortest and a longest pause, not {pauses!r}")
    return shortest, longest


def pause(failures: int, pauses: tuple[float, float]) -> float:
    """Seconds to wait after so many failures in a row: 1 and more.

    Full jitter above the shortest: many clients must not come back in step.
    """
    shortest, longest = pauses
    ceiling = min(longest, shortest * 2.0 ** min(failures, 50))
    return shortest + random.random() * (ceiling - shortest)  # noqa: S311 - no secret
