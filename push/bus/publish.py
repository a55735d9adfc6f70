"""The only module that sends to the channel layer.

Callers are synchronous: Celery tasks and API views. The layer belongs to an event loop. In a node
that is the server's loop, because the in-process layer exists only there. A worker or an API
process keeps one loop in a thread of its own. `async_to_sync` would create a loop and a Redis pool
for each call.
"""

import asyncio
import threading
from collections.abc import Iterable

from channels.layers import get_channel_layer

from imgo_site.errors import Unavailable
from imgo_site.forks import renew_after_fork
from push.bus import service_faults
from push.bus.envelope import Envelope, as_layer_message
from push.bus.layers import LAYER_ERRORS, groups_send

TIMEOUT = 5.0  # seconds for one call; callers retry later

_lock = threading.Lock()
_node_loop: asyncio.AbstractEventLoop | None = None
_own_loop: asyncio.AbstractEventLoop | None = None


def use_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Publish on this loop from now on; a node passes the server's loop, None ends that."""
    global _node_loop  # noqa: PLW0603 - one loop a process is the point
    with _lock:
        _node_loop = loop


def _publishing_loop() -> asyncio.AbstractEventLoop:
    global _own_loop  # noqa: PLW0603
    with _lock:
        if _node_loop is not None and not _node_loop.is_closed():
            return _node_loop
        if _own_loop is None:
            _own_loop = asyncio.new_event_loop()
            threading.Thread(target=_own_loop.run_forever, name="imgo-publish", daemon=True).start()
        return _own_loop


def _forget_loops() -> None:
    """Drop the loops after a fork: their threads exist only in the parent."""
    global _lock, _node_loop, _own_loop
    _lock, _node_loop, _own_loop = threading.Lock(), None, None


renew_after_fork(_forget_loops)


async def send(envelopes: Iterable[Envelope]) -> None:
    """Send each envelope to its group, in order. Raises one of `LAYER_ERRORS`."""
    layer = get_channel_layer()
    assert layer is not None, "CHANNEL_LAYERS has no default layer"
    pairs = [(envelope["group"], as_layer_message(envelope)) for envelope in envelopes]
    await groups_send(layer, pairs)


def publish(envelopes: list[Envelope], timeout: float = TIMEOUT) -> None:
    """Send each envelope to its group, in order, and wait until the layer has them.

    `timeout`: seconds. Do not call this from the event loop's own thread.

    Raises `Unavailable` if the layer cannot be reached or does not reply in time. Some envelopes
    may have been sent then.
    """
    if not envelopes:
        return
    future = asyncio.run_coroutine_threadsafe(send(envelopes), _publishing_loop())
    try:
        future.result(timeout)
    except LAYER_ERRORS as error:
        future.cancel()
        reason = service_faults.of_layer(error)
        raise Unavailable(f"The channel layer {reason}.") from error
