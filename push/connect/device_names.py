"""Device of a new session: only keys with the scope `each` have devices."""

import re

from accounts.identity import Identity
from accounts.staff import DASHBOARD
from imgo_site import ack_scope
from imgo_site.batching import BatchLoader
from imgo_site.database_threads import session_threads
from imgo_site.errors import BadRequest
from offline import key_devices
from push.metrics import definitions as metrics

# get((key, name)) → True if the device is known, and was recorded as connected. After a restart all
# devices come back at once: one transaction serves many of them.
known_devices: BatchLoader[tuple[str, str], bool] = BatchLoader(
    lambda pairs: dict.fromkeys(key_devices.refresh(pairs), True)
)
# get((key, name)) → True if the device was added. One batch at a time: two would find the devices
# of the same keys locked.
new_devices: BatchLoader[tuple[str, str], bool] = BatchLoader(
    lambda pairs: dict.fromkeys(key_devices.register_new(pairs), True), batches=1
)
NAME = re.compile("[0-9A-Za-z._:-]{1,64}")


async def register(identity: Identity, name: str) -> str | None:
    """Register the device of a session, and return its name; None if its key has no devices.

    `name`: from the auth body; "" for a client that gives none. All such clients of a key are one
    device, whose name is "".

    Raises `BadRequest` for another name than a device can have; what the database raises.
    """
    if identity.source == DASHBOARD or not ack_scope.is_each(identity.key):
        return None
    if name and not NAME.fullmatch(name):
        raise BadRequest(
            "'device' has 1 to 64 characters: letters, digits, '.', '_', ':' and '-'; "
            f"not {name[:70]!r}."
        )
    device = identity.key, name
    if await known_devices.get(device) or await new_devices.get(device):
        return name
    dropped = await session_threads.run(key_devices.register, *device)
    if dropped:
        metrics.DROPS.labels(key_devices.FORGOTTEN).inc(dropped)
    return name
