"""Pauses between attempts: exponential backoff with jitter."""

from __future__ import annotations

import random

from imgo_client.arguments import check_seconds


def check_pauses(pauses: object) -> tuple[float, float]:
    """Return `pauses` if it is a pair of the shortest and the longest pause, in seconds.

    Raises TypeError unless it has two numbers, ValueError unless both are positive and in this
    order.
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
    """Return the seconds to wait after `failures` failures in a row, 1 or more.

    Full jitter above the shortest pause, because many clients must not reconnect at the same
    moment.
    """
    shortest, longest = pauses
    ceiling = min(longest, shortest * 2.0 ** min(failures, 50))
    return shortest + random.random() * (ceiling - shortest)  # noqa: S311 - no secret
