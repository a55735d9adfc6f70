"""Times at which pushes are due: `send_at` of the API, the Python calls and `manage.py push`."""

import math
from datetime import UTC, datetime, timedelta

from imgo_site.conf import conf
from imgo_site.errors import BadRequest

FORM = "a time with a zone, such as 2026-12-24T18:00:00Z, or a number of seconds from now"


def read_send_at(value: str | float | None) -> datetime | float | None:
    """Return a time or a number of seconds as it was given in JSON or on a command line.

    Raises `BadRequest` for a text that is neither. `check_send_at` checks the rest.
    """
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise BadRequest(f"send_at must be {FORM}, not {value[:60]!r}.") from None


def check_send_at(value: object) -> None:
    """Raise `BadRequest` for a time without a zone, or after `MAX_DELAY`.

    The process's clock decides whether it is too late. The database's decides when it is due.
    """
    if value is None:
        return
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise BadRequest(f"send_at must be {FORM}; {value.isoformat()} has no zone.")
        if value - datetime.now(tz=UTC) > timedelta(seconds=conf.MAX_DELAY):
            latest = f"at most {conf.MAX_DELAY} seconds (MAX_DELAY) from now"
            raise BadRequest(f"send_at must be {latest}; {value.isoformat()} is later.")
    elif isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise BadRequest(f"send_at must be {FORM}, not {value!r}.")
    elif not 0 <= value <= conf.MAX_DELAY:
        raise BadRequest(
            f"send_at must be from 0 to {conf.MAX_DELAY} seconds (MAX_DELAY), not {value}."
        )


def in_utc(value: datetime) -> datetime:
    """Return the time in UTC. One before the year 1 is the first moment of that year.

    Postgres refuses zones of 16 hours and more, which Python accepts. One such push would fail the
    statement that stores it together with others.
    """
    try:
        return value.astimezone(UTC)
    except OverflowError:  # UTC has no such time; `check_send_at` has refused those after 9999
        return datetime.min.replace(tzinfo=UTC)
