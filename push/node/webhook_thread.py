"""Thread of the sender of webhooks, so that its work does not delay a node's sessions."""

import asyncio
import threading

from imgo_site.conf import conf
from push.node.runtime import Runtime
from push.webhooks.sender import Sender

END_TIME = 1.5  # seconds that a stopping sender may take to store results and end its lease


class WebhookThread:
    """The thread of one node. Without `WEBHOOKS` it does nothing."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Start the thread, if there are endpoints."""
        if conf.WEBHOOKS:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._work, name="imgo-webhooks", daemon=True)
            self._thread.start()

    async def stop(self, deadline: float) -> None:
        """End the thread; wait for it until `deadline` (time of the caller's loop).

        A thread that has not ended by then is left behind; its lease ends by itself.
        """
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        patience = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.to_thread(self._thread.join, patience)

    def _work(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop, sender = asyncio.get_running_loop(), Sender()
        self.runtime.keep("webhooks", sender.run)
        await self._stopping.wait()
        await self.runtime.stop(loop.time() + END_TIME)
        await sender.stop()
