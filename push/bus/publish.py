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
from imgo_site.process_parts import process
from push.bus import service_faults
from push.bus.envelope import Envelope, as_layer_message
from push.bus.layers import LAYER_ERRORS, groups_send

TIMEOUT = 5.0  # seconds for one call; callers retry later

CLOSE_TIMEOUT = 1.0  # seconds for the end of the process's own loop


class Publisher:
    """Choice of the loop on which a process publishes, because its channel layer is one for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_nodes: list[asyncio.AbstractEventLoop] = []
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Publish on the loop of a node that starts."""
        with self._lock:
            self._of_nodes.append(loop)

    def leave_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop publishing on a node's loop, unless another node uses it."""
        with self._lock:
            if loop in self._of_nodes:
                self._of_nodes.remove(loop)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the latest node; without a node, one in a thread of its own."""
        with self._lock:
            for loop in reversed(self._of_nodes):
                if not loop.is_closed():
                    return loop
            if self._own is None:
                self._own = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._own,), name="imgo-publish", daemon=True
                )
                self._thread.start()
            return self._own

    def close(self) -> None:
        """End the own loop and its connections."""
        with self._lock:
            loop, self._own = self._own, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_TIMEOUT)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.run_until_complete(_cancel_tasks())
    loop.close()  # the layer then closes its connections


async def _cancel_tasks() -> None:
    """Cancel all tasks, which close their connections. One may wait for a silent Redis."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT / 2)


def use_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Publish on this loop from now on: a node passes that of its server."""
    process.get(Publisher).use_loop(loop)


def leave_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End one `use_loop`."""
    process.get(Publisher).leave_loop(loop)


async def send(envelopes: Iterable[Envelope]) -> int | None:
    """Send each envelope to its group, in order; return what `groups_send` returns.

    Raises one of `LAYER_ERRORS`.
    """
    layer = get_channel_layer()
    assert layer is not None, "CHANNEL_LAYERS has no default layer"
    pairs = [(envelope["group"], as_layer_message(envelope)) for envelope in envelopes]
    return await groups_send(layer, pairs)


def publish(envelopes: list[Envelope], timeout: float = TIMEOUT) -> int | None:
    """Send each envelope to its group, in order, and wait until the layer has them.

    Return how many processes receive them, summed over the envelopes; None if the layer does not
    report it. `timeout`: seconds. Do not call this from the event loop's own thread.

    Raises `Unavailable` if the layer cannot be reached or does not reply in time. Some envelopes
    may have been sent then.
    """
    if not envelopes:
        return 0
    future = asyncio.run_coroutine_threadsafe(send(envelopes), process.get(Publisher).loop())
    try:
        return future.result(timeout)
    except LAYER_ERRORS as error:
        future.cancel()
        reason = service_faults.of_layer(error)
        raise Unavailable(f"The channel layer {reason}.") from error
