"""Thread with an event loop of its own, for work that must not delay a node's sessions."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from push.node.runtime import Runtime


class Worker(Protocol):
    """What runs on the thread."""

    async def run(self) -> None:
        """Work until it is cancelled."""

    async def stop(self) -> None:
        """Store what is known. It is called after `run` has ended."""


class OwnThread:
    """Thread of one node.

    `name`: of the task, in the log and in `/readyz`. `make`: makes the worker, on the thread.
    `end_time`: seconds that a stopping worker may take.
    """

    def __init__(self, name: str, make: Callable[[], Worker], end_time: float) -> None:
        self.runtime = Runtime()
        self._name = name
        self._make = make
        self._end_time = end_time
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping = asyncio.Event()

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name=f"imgo-{self._name}", daemon=True)
        self._thread.start()

    async def stop(self, deadline: float) -> None:
        """End the thread; wait for it until `deadline` (time of the caller's loop).

        A thread that has not ended by then is left behind; its leases end by themselves.
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
        loop, worker = asyncio.get_running_loop(), self._make()
        self.runtime.keep(self._name, worker.run)
        await self._stopping.wait()
        await self.runtime.stop(loop.time() + self._end_time)
        await worker.stop()
