"""Limits of what clients publish through a node: the rate of each key, and stored permissions.

A permission is an answer of the user's backend. It is stored for a while, so that not every message
needs a request.
"""

from collections.abc import Callable

from imgo_site.conf import conf

BURST = 1.0  # seconds whose messages may come at once
FORGET_EVERY = 10.0  # seconds from one removal of idle keys and old permissions to the next
PERMISSION_AGE = 30.0  # seconds for which a permission is remembered


class PublishLimits:
    """Limits of one node. `now`: returns monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # By key: when the messages so far would have ended, had they come at the allowed rate.
        self._until: dict[str, float] = {}
        # By session id and room: whether it may publish, and until when that holds.
        self._permissions: dict[tuple[str, str], tuple[bool, float]] = {}
        self._forgot = now()

    def admits(self, key: str) -> bool:
        """Count a message of a key; return False if the key publishes too fast."""
        rate = conf.MAX_PUBLISHES_PER_SECOND
        if not rate:
            return True
        now = self._now()
        self._forget(now)
        until = max(now, self._until.get(key, now)) + 1 / rate
        if until > now + BURST + 1e-6:  # sums of fractions are not exact
            return False
        self._until[key] = until
        return True

    def permission(self, session_id: str, room: str) -> bool | None:
        """Return the remembered permission; None if there is none."""
        permission = self._permissions.get((session_id, room))
        return permission[0] if permission is not None and permission[1] > self._now() else None

    def remember(self, session_id: str, room: str, *, is_allowed: bool) -> None:
        """Remember whether a session may publish to a room, for `PERMISSION_AGE` seconds."""
        now = self._now()
        self._forget(now)
        self._permissions[session_id, room] = (is_allowed, now + PERMISSION_AGE)

    def _forget(self, now: float) -> None:
        if now - self._forgot < FORGET_EVERY:
            return
        self._forgot = now
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._permissions = {
            place: permission
            for place, permission in self._permissions.items()
            if permission[1] > now
        }
