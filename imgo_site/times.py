"""Times as text: UTC in ISO 8601, ending in Z, such as 2026-11-26T08:20:57Z."""

from datetime import UTC, datetime


def utc_text(moment: datetime, timespec: str = "seconds") -> str:
    """Return an aware time as text. `timespec`: the precision, as `datetime.isoformat` takes it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=timespec) + "Z"
