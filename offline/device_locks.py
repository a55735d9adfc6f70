"""Devices of keys, locked for a transaction that stores messages for them.

A push and a registration cannot pass each other. A push holds the rows of a key's devices, and a
registration waits until that transaction has ended. A key without a device has no row to hold: its
messages get the device "", whose row the first device that acknowledges it takes.
"""

from collections.abc import Iterable, Mapping, Sequence

from django.db import connection

from imgo_site.ack_scope import each_of
from offline.sql import chunks, dialect
from offline.values import NewMessage


def keys_to_lock(messages: Iterable[NewMessage]) -> list[str]:
    """Return the keys with the scope `each` that these messages are stored for."""
    return each_of(key for new in messages if new.stored for key in new.keys)


def lock(keys: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the names of the devices of these keys, without keys that have none.

    No device is added to these keys or removed before the transaction ends.
    """
    found = _read(keys)
    # A first device may have been added while the statement waited or before it locked a row.
    while (again := _read(keys)) != found:
        found = again
    return found


def _read(keys: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for chunk in chunks(keys):
        marks = ", ".join(["%s"] * len(chunk))
        with connection.cursor() as cursor:
            cursor.execute(_LOCK.format(marks=marks, lock=dialect().share_lock()), chunk)
            for key, name in cursor.fetchall():
                found.setdefault(key, []).append(name)
    return found


# In one order, as all who lock these rows.
_LOCK = "SELECT key, name FROM offline_keydevice WHERE key IN ({marks}) ORDER BY id {lock}"
