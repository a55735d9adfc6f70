"""Devices of keys with the scope `each`: registration, and the end of those not seen for long.

A transaction that adds or removes a device locks the key's devices first, and so waits for pushes
to the key that are being stored: see `offline/device_locks.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import transaction
from django.db.models import Count, F
from django.db.models.functions import Now

from imgo_site.conf import conf
from offline.models import Event, KeyDevice, Pending
from offline.settlement import record_ends
from offline.sql import chunks

FORGOTTEN = "device_forgotten"  # reason of its dropped messages
FORGET_BATCH = 100  # devices of one transaction


class DeviceState(NamedTuple):
    """One device of a key. `pending`: number of messages that it has not acknowledged."""

    name: str
    created_at: datetime
    seen_at: datetime
    pending: int


def register(key: str, name: str) -> int:
    """Record that a session of a device is open; add the device to its key if it is new.

    A new device gets messages that are pushed from now on. Above `DEVICES_MAX`, the least recently
    seen devices are forgotten. Return the number of messages that were dropped with them.
    """
    if KeyDevice.objects.filter(key=key, name=name).update(seen_at=Now()):
        return 0
    with transaction.atomic():
        devices = KeyDevice.objects.filter(key=key)
        list(devices.order_by("pk").select_for_update())
        KeyDevice.objects.bulk_create(
            [KeyDevice(key=key, name=name, seen_at=Now())],
            ignore_conflicts=True,  # another session of the device adds it at the same moment
        )
        others = devices.exclude(name=name).order_by("-seen_at", "-pk")
        return _forget(list(others[conf.DEVICES_MAX - 1 :].select_for_update()))


def register_new(pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Add devices (key, name) to their keys in one transaction; return those that were added.

    It waits for no push and forgets no device. So it leaves out devices that exist, those of a key
    with a device that others lock, and those of a key that would have more than `DEVICES_MAX`.
    Call `register` for these.
    """
    added: set[tuple[str, str]] = set()
    for chunk in chunks(sorted(pairs)):
        names: dict[str, list[str]] = {}
        for key, name in chunk:
            names.setdefault(key, []).append(name)
        with transaction.atomic():
            places = _free_places(names)
            # Sorted as above, so that nodes which add the same devices wait in one order.
            new = [(key, name) for key in names if places[key] >= 0 for name in names[key]]
            KeyDevice.objects.bulk_create(
                [KeyDevice(key=key, name=name, seen_at=Now()) for key, name in new],
                ignore_conflicts=True,  # another node adds the device at the same moment
            )
        added.update(new)
    return added


def _free_places(names: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Lock the devices of keys; return how many more each key could get besides its `names`.

    It is negative for a key that cannot get these names now.
    """
    places = {key: conf.DEVICES_MAX - len(new) for key, new in names.items()}
    rows = KeyDevice.objects.filter(key__in=names).order_by("pk")
    locked = set(rows.select_for_update(skip_locked=True).values_list("pk", flat=True))
    for pk, key, name in rows.values_list("pk", "key", "name"):
        is_free = pk in locked and name not in names[key]
        places[key] -= 1 if is_free else conf.DEVICES_MAX
    return places


def refresh(pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Record that sessions of these (key, name) are open; return those that were recorded.

    It adds no device. It waits for no lock, so it leaves out devices that a push locks, too.
    """
    recorded: set[tuple[str, str]] = set()
    for chunk in chunks(sorted(pairs)):
        with transaction.atomic():
            rows = KeyDevice.objects.filter(
                key__in={key for key, _ in chunk}, name__in={name for _, name in chunk}
            )
            # Those that others hold are being seen, or forgotten.
            locked = rows.order_by("pk").select_for_update(no_key=True, skip_locked=True)
            wanted = set(chunk)
            mine = [row for row in locked if (row.key, row.name) in wanted]
            KeyDevice.objects.filter(pk__in=[row.pk for row in mine]).update(seen_at=Now())
        recorded.update((row.key, row.name) for row in mine)
    return recorded


class Forgotten(NamedTuple):
    """Numbers of devices that were forgotten, and of messages that were dropped with them."""

    devices: int
    dropped: int


def forget_batch() -> Forgotten:
    """Forget one batch of devices without a session for `DEVICE_TTL`."""
    old = KeyDevice.objects.filter(seen_at__lt=Now() - timedelta(seconds=conf.DEVICE_TTL))
    with transaction.atomic():
        rows = list(old.order_by("pk").select_for_update(skip_locked=True)[:FORGET_BATCH])
        return Forgotten(len(rows), _forget(rows))


def _forget(devices: Sequence[KeyDevice]) -> int:
    """Delete devices and drop their pending messages; return how many messages these were.

    The caller has locked the devices, so no push is stored for them meanwhile.
    """
    dropped = 0
    for device in devices:
        rows = Pending.objects.filter(key=device.key, device=device.name).order_by("pk")
        ended = list(rows.select_for_update().values_list("pk", "message_id", "key", "device"))
        for chunk in chunks(ended):
            Pending.objects.filter(pk__in=[pk for pk, *_ in chunk]).delete()
        record_ends([row for _, *row in ended], Event.Kind.DROPPED, FORGOTTEN)
        dropped += len(ended)
    KeyDevice.objects.filter(pk__in=[device.pk for device in devices]).delete()
    return dropped


def devices_of(key: str) -> list[DeviceState]:
    """Return the devices of a key, those seen last first, with their pending messages."""
    rows = KeyDevice.objects.filter(key=key).order_by(F("seen_at").desc(), "pk")
    pending = Pending.objects.unexpired(key).order_by().values("device").annotate(n=Count("pk"))
    counts = dict(pending.values_list("device", "n"))
    return [
        DeviceState(row.name, row.created_at, row.seen_at, counts.get(row.name, 0)) for row in rows
    ]
