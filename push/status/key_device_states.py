"""Sentences about the devices of a key with the scope `each`, for `explain`."""

from collections.abc import Iterator

from imgo_site.ack_scope import is_each
from imgo_site.times import utc_text
from offline import key_devices
from offline.history import Delivery


def name_of(device: str) -> str:
    """Return a device for people. The device "" is all clients that give no name."""
    return f"device {device!r}" if device else "clients that name no device"


def of_key(key: str) -> Iterator[str]:
    """Yield a line for each device of a key."""
    if not is_each(key):
        return
    for device in key_devices.devices_of(key):
        count = f"{device.pending} pending message{'' if device.pending == 1 else 's'}"
        seen = utc_text(device.seen_at, "milliseconds")
        name = name_of(device.name)
        yield f"  {name[0].upper()}{name[1:]}: {count}, known to be connected at {seen}."


def of_devices(delivery: Delivery) -> str:
    """Return a sentence about which devices of a key have acknowledged a message."""
    done = [part for part in delivery.devices if part.state == "acknowledged"]
    text = f"{len(done)} of {len(delivery.devices)} devices of the key have acknowledged it"
    waiting = [name_of(part.device) for part in delivery.devices if part.state == "pending"]
    return f"{text}; it is pending for {', '.join(waiting)}." if waiting else f"{text}."
