"""Sentences about the devices of a key with the scope `each`, for `explain`."""

from collections import Counter
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


# For a device that got a live copy, but that was new or forgotten when the message was stored.
NOT_STORED = (
    "It was not stored for this device, which was not registered then. An open session got it."
)


def of_devices(delivery: Delivery) -> str:
    """Return a sentence about how a message ended for the devices that it was stored for."""
    parts = delivery.stored_parts
    done = [part for part in parts if part.state == "acknowledged"]
    text = f"{len(done)} of {len(parts)} devices of the key have acknowledged it"
    ends = Counter(
        f"{part.state} ({part.reason})" if part.reason else part.state
        for part in parts
        if part.state in ("expired", "dropped")
    )
    if ends:
        text += "; " + ", ".join(f"{end} for {count}" for end, count in sorted(ends.items()))
    waiting = [name_of(part.device) for part in parts if part.state == "pending"]
    return f"{text}; it is pending for {', '.join(waiting)}." if waiting else f"{text}."
