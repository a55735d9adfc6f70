"""Registration of devices: one row an address, which belongs to the key that used it last."""

from hmac import compare_digest

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import check_name, has_control_characters
from push.devices.addresses import Address
from push.devices.tables import NAME_MAX, Device


def register(key: str, address: Address, name: str = "") -> Device:
    """Register a device of a key, or renew it, and return its row.

    A device that was another key's is this key's from now on: somebody else has logged in there.
    Above `DEVICES_PER_KEY` devices, the key's least recently registered one is deleted.

    Raises `BadRequest` for a key or name that is not valid.
    """
    check_name(key, "key")
    if len(name) > NAME_MAX or has_control_characters(name):
        raise BadRequest(
            f"A device's name has at most {NAME_MAX} characters, without control characters."
        )
    with transaction.atomic():
        device, _ = Device.objects.update_or_create(
            digest=address.digest,
            defaults={
                "key": key,
                "provider": address.provider,
                "address": address.text,
                "name": name,
                "last_seen": Now(),
                "failures": 0,
            },
        )
        device.refresh_from_db()
        # Two registrations at once may exceed the cap, until the next one.
        excess = list(devices_of(key).values_list("pk", flat=True)[conf.DEVICES_PER_KEY :])
        if excess:
            Device.objects.filter(pk__in=excess).delete()
    return device


def replace(old: Address, new: Address) -> Device | None:
    """Give the device with the address `old` the address `new`; return its row, None without one.

    The whole of `old` must be right: it holds a secret that only the browser and this server have.
    """
    with transaction.atomic():
        device = Device.objects.select_for_update().filter(digest=old.digest).first()
        if device is None or not compare_digest(device.address, old.text):
            return None
        # A page may have registered the new address already.
        Device.objects.filter(digest=new.digest).exclude(pk=device.pk).delete()
        device.address, device.digest, device.failures = new.text, new.digest, 0
        device.save(update_fields=["address", "digest", "failures"])
    return device


def devices_of(key: str) -> "QuerySet[Device]":
    """Return the devices of a key, the most recently registered first."""
    return Device.objects.filter(key=key).order_by("-last_seen", "-pk")


def remove(key: str, device_id: int | None = None) -> int:
    """Delete one device of a key, or with None all of them; return how many there were."""
    rows = Device.objects.filter(key=key)
    if device_id is not None:
        rows = rows.filter(pk=device_id)
    return rows.delete()[1].get("push.Device", 0)
