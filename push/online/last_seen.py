"""Query of the time when a key was last connected."""

from collections.abc import Mapping
from datetime import datetime

from django.utils import timezone

from push.online.tables import OnlineState
from push.session.session_records import SessionEvent


def last_seen(
    events: Mapping[str, SessionEvent], state: OnlineState | None, *, is_online: bool
) -> datetime | None:
    """Return when a key last had a session: now, if it has one; None if that is not known.

    `events`: the key's session records by name. `state`: None for a key that had no online event.
    """
    if is_online:
        return timezone.now()
    times = [events[name].time for name in ("opened", "closed") if name in events]
    if state is not None:
        times.append(state.at)
    return max(times, default=None)
