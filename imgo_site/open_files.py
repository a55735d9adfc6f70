"""The limit of open files of this process; each session needs one file."""

import resource

RESERVED = 100  # files of a node other than sessions: libraries, Postgres, Redis, listeners


def limits() -> tuple[int, int]:
    """Return (current limit, maximum that the limit may be raised to)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _number(soft), _number(hard)


def raise_limit() -> None:
    """Raise the limit to its maximum: shells and services often start with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) < _number(hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _number(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
