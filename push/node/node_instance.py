"""Instance with a node, which starts on first use, because ASGI servers may have no lifespan."""

import asyncio

from push.node.node import Node, own_name
from push.status.instance import Instance


class NodeInstance(Instance):
    """Owner of one node, and of the state of the server that holds it. For one event loop.

    `name`: the node's; "" for that of the settings.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._name = name
        self._starting: asyncio.Task[Node] | None = None

    async def node(self) -> Node:
        """Return the node, and start it on first use. Raises what its start raises.

        A caller that is cancelled does not stop the start. A start that failed is repeated.
        """
        if self._starting is None or (self._starting.done() and not self.is_running):
            self._starting = asyncio.get_running_loop().create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> Node:
        node = Node(self, self._name or own_name())
        await node.start()
        return node

    async def stop(self, patience: float | None = None) -> None:
        """Stop the node if it was started.

        `patience`: seconds until a start under way is cancelled; None for no limit.
        """
        task, self._starting = self._starting, None
        if task is None:
            return
        await asyncio.wait([task], timeout=patience)
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            await task.result().stop()

    @property
    def running(self) -> "tuple[Node, asyncio.AbstractEventLoop] | None":
        """Return the node and its event loop; None while no node is running. For any thread."""
        task = self._starting
        return (task.result(), task.get_loop()) if task is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the node was started and not stopped."""
        task = self._starting
        return task is not None and task.done() and not task.cancelled() and not task.exception()
