"""Phrases that explanations share: counts, times and how long records are kept."""

from datetime import datetime

from imgo_site.conf import conf
from imgo_site.times import utc_text


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 session", "2 sessions"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def time_text(moment: datetime | None) -> str:
    """Return a time with milliseconds, "" for None."""
    return "" if moment is None else utc_text(moment, "milliseconds")


def kept_for() -> str:
    """Return how long records are kept, such as "24 h (RECORD_KEEP)"."""
    seconds = conf.RECORD_KEEP
    text = f"{seconds / 3600:g} h" if seconds and seconds % 3600 == 0 else f"{seconds} s"
    return f"{text} (RECORD_KEEP)"
