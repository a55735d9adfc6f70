"""Renewal of the locks, threads and connections that a forked child must not share.

Servers load the site and then fork (`gunicorn --preload`, multiprocessing, a prefork pool). The
child has none of the parent's threads. A lock that such a thread held stays locked for ever in
the child. A connection has one stream of replies, which two processes cannot share. So each module
with such state renews it after a fork.
"""

import os
from collections.abc import Callable
from typing import Any

from django.db import connections

# The parents' connections and pools. Kept, so that they are never closed or collected: the parent
# uses the same sockets.
_of_parents: list[Any] = []


def renew_after_fork(renew: Callable[[], object]) -> None:
    """Call `renew` in every child that is forked from now on, before its other code runs."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def leave_to_parent(*resources: object) -> None:
    """Keep connections or pools of the parent without ever using, closing or collecting them."""
    _of_parents.extend(resources)


def forget_database() -> None:
    """Leave the database's connections and pools to the parent; the next use opens new ones."""
    for wrapper in connections.all(initialized_only=True):
        pools = getattr(wrapper, "_connection_pools", None)
        if pools:
            leave_to_parent(*pools.values())
            pools.clear()
        leave_to_parent(wrapper.connection)
        del connections[wrapper.alias]


renew_after_fork(forget_database)
