"""What a forked child must not share with its parent: locks, threads and connections.

Servers load the site and fork then (`gunicorn --preload`, multiprocessing, a prefork pool). Of
the parent's threads none is in the child, a lock may be held by one of them for ever, and a
connection has one stream of replies for two processes. So each part that has some begins anew.
"""

import os
from collections.abc import Callable
from typing import Any

from django.db import connections
from kombu import pools

_of_parents: list[Any] = []  # never closed, nor collected: their sockets are the parents' too


def renew_after_fork(renew: Callable[[], object]) -> None:
    """Call `renew` in every child that is forked from now on, before anything else there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def forget_database() -> None:
    """Leave the database's connections and pools to the parent; the next use makes new ones."""
    for wrapper in connections.all(initialized_only=True):
        pools = getattr(wrapper, "_connection_pools", None)
        if pools:
            _of_parents.extend(pools.values())
            pools.clear()
        _of_parents.append(wrapper.connection)
        del connections[wrapper.alias]


def forget_broker() -> None:
    """Leave the broker's connections to the parent; the next use makes new ones.

    kombu does so after a fork of multiprocessing's only, not of `gunicorn --preload`.
    """
    for group in (pools.connections, pools.producers):
        _of_parents.extend(group.values())
        group.clear()


renew_after_fork(forget_database)
renew_after_fork(forget_broker)
