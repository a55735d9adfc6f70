"""System checks of imgo's settings, each with an id and a hint.

`manage.py check` and every start of a server run the checks that only read settings. `--deploy`
adds those of the machine. `--deploy --database default` adds those that query the limits of
Postgres and Redis.
"""

from push.checks import (
    ack_scope,
    capacity,
    database,
    devices,
    hooks,
    layers,
    limits,
    names,
    online,
    project,
    replica,
    rooms,
    security,
    webhooks,
)
from push.checks.names import CALLABLES

__all__ = [
    "CALLABLES", "ack_scope", "capacity", "database", "devices", "hooks", "layers", "limits",
    "names", "online", "project", "replica", "rooms", "security", "webhooks",
]  # fmt: skip
