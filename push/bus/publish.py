"""The only place that sends to the channel layer.

Callers are synchronous: Celery tasks and API views. The layer belongs to an event loop: in a node
that is the server's own (the in-process layer exists nowhere else); in a worker or an API process
it is one that runs in a thread of its own and stays, because `async_to_sync` would make a new
loop and a new Redis pool for each call.
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

TIMEOUT = 5.0  # seconds for one call; what takes longer is sent again, later

_lock = threading.Lock()
_node_loop: asyncio.AbstractEventLoop | None = None
_own_loop: asyncio.AbstractEventLoop | None = None


def use_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Publish on this loop from now on: a node calls this with the server's."""
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
    """The threads that ran them are the parent's."""
    global _lock, _node_loop, _own_loop
    _lock, _node_loop, _own_loop = threading.Lock(), None, None


renew_after_fork(_forget_loops)


async def send(envelopes: Iterable[Envelope]) -> None:
    """Send each envelope to its group, in order. Raises what the layer raises."""
    layer = get_channel_layer()
    assert layer is not None, "CHANNEL_LAYERS has no default layer"
    pairs = [(envelope["group"], as_layer_message(envelope)) for envelope in envelopes]
    await groups_send(layer, pairs)


def publish(envelopes: list[Envelope], timeout: float = TIMEOUT) -> None:
    """Send each envelope to its group, in order, and wait until the layer has them.

    `timeout`: seconds. Raises `Unavailable` when the layer cannot be reached or does not answer in
    time; some may have been sent then. Call it from any thread but the event loop's own.
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
