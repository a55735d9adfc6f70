"""How long to wait before the next attempt."""

from __future__ import annotations

import random

from imgo_client.arguments import check_seconds


def check_pauses(pauses: object) -> tuple[float, float]:
    """Return `pauses` if they are a shortest and a longest one, in seconds.

    Raises TypeError unless they are two numbers, ValueError for numbers that are no such pauses.
    """
    if not isinstance(pauses, (tuple, list)) or len(pauses) != 2:
        raise TypeError(f"backoff must be a shortest and a longest pause, not {pauses!r}")
    shortest, longest = pauses
    for value in pauses:
        check_seconds("backoff", value)
    if shortest > longest:
        raise ValueError(f"backoff must have the shortest pause first, not {pauses!r}")
    return shortest, longest


def pause(failures: int, pauses: tuple[float, float]) -> float:
    """Seconds to wait after so many failures in a row: 1 and more.

    Full jitter above the shortest: many clients must not come back in step.
    """
    shortest, longest = pauses
    ceiling = min(longest, shortest * 2.0 ** min(failures, 50))
    return shortest + random.random() * (ceiling - shortest)  # noqa: S311 - no secret
