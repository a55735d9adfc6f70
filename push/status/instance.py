"""Instance: what one server of a process knows about itself. Two of them share nothing.

An entry point makes one: the server of a node for its node, the ASGI application for a node under
another ASGI server. It travels in the scope of each connection and HTTP request. Processes without
a node, such as WSGI servers, have one that is made on first use.
"""

from typing import Any

from accounts.login_throttle import LoginThrottle
from imgo_site.process_parts import process
from push.status.health import Health
from push.status.snapshot import RoomsCache
from push.status.vitals import Vitals

INSTANCE = "imgo.instance"  # the key of a scope


class Instance:
    """State of one server: its health, its failed logins, its probes' queries and cached counts."""

    def __init__(self) -> None:
        self.health = Health()
        self.guard = LoginThrottle()
        self.vitals = Vitals(self.health)
        self.rooms = RoomsCache()


def instance_of(request: Any) -> Instance:
    """Return the instance that serves a request of Django or Django REST framework."""
    scope: dict[str, Any] = getattr(request, "scope", None) or {}  # only ASGI requests have one
    instance: Instance | None = scope.get(INSTANCE)
    return process.get(Instance) if instance is None else instance
