"""How many files this process may open: a session is one."""

import resource

RESERVED = 100  # files of a node that are no sessions: libraries, Postgres, Redis, listeners


def limits() -> tuple[int, int]:
    """(what holds now, what it may be raised to)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _number(soft), _number(hard)


def raise_limit() -> None:
    """Allow as many as may be allowed: shells and services often start with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) < _number(hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _number(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
