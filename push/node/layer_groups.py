"""Groups of the channel layer that a node's channel is in.

A node adds its channel to a group when the first local session joins it, and removes it a while
after the last one has left. Groups that are joined while a command is under way wait for the next
command, which joins all of them.
"""

import asyncio
from typing import Any

from imgo_site.batching import settle
from push.bus.layers import groups_add, groups_discard, leave


class _Batch:
    """Groups that are joined with one command, and the futures of the callers that wait for it."""

    __slots__ = ("groups", "waiting")

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.waiting: list[asyncio.Future[None]] = []


class LayerGroups:
    """Membership of one channel in the layer's groups, for one event loop.

    `channel`: the channel's name, empty before `start`.
    """

    def __init__(self, layer: Any) -> None:
        self.channel = ""
        self._layer = layer
        self._joined: set[str] = set()
        self._joining: dict[str, _Batch] = {}
        self._next_batch: _Batch | None = None
        self._joiner: asyncio.Task[None] | None = None
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._empty_since: dict[str, float] = {}  # loop time

    def __contains__(self, group: str) -> bool:
        return group in self._joined

    async def start(self) -> None:
        """Get a channel. Raises what the layer raises."""
        self.channel = await self._layer.new_channel("imgo")

    def stop(self) -> None:
        """Join no more groups."""
        if self._joiner is not None:
            self._joiner.cancel()

    async def join(self, *groups: str) -> None:
        """Be in these groups when this returns. Raises what the layer raises."""
        for group in groups:
            if leaving := self._leaving.get(group):
                await asyncio.wait([leaving])
        missing = [group for group in groups if group not in self._joined]
        batches = [self._joining.get(group) or self._join_soon(group) for group in missing]
        # Wait in all batches before awaiting any: a later one may end before an earlier one.
        waiting: list[asyncio.Future[None]] = []
        for batch in dict.fromkeys(batches):
            waiting.append(asyncio.get_running_loop().create_future())
            batch.waiting.append(waiting[-1])
        if len(waiting) == 1:  # nearly always; `gather` would cost a storm a callback more for each
            await waiting[0]
        else:
            await asyncio.gather(*waiting)

    def _join_soon(self, group: str) -> _Batch:
        """Add a group to the next batch, which collects groups while the last one is under way."""
        if self._next_batch is None:
            self._next_batch = _Batch()
            if self._joiner is None:
                self._joiner = asyncio.get_running_loop().create_task(self._join_batches())
        self._next_batch.groups.append(group)
        self._joining[group] = self._next_batch
        return self._next_batch

    async def _join_batches(self) -> None:
        try:
            while self._next_batch is not None:
                batch, self._next_batch = self._next_batch, None
                error: Exception | None = None
                try:
                    await groups_add(self._layer, batch.groups, self.channel)
                    self._joined.update(batch.groups)
                except Exception as caught:  # noqa: BLE001 - raised by each waiter
                    error = caught
                for group in batch.groups:
                    del self._joining[group]
                settle(batch.waiting, error=error)
        finally:
            self._joiner = None

    def occupied(self, group: str) -> None:
        """Record that a local session is in a group, or will be."""
        self._empty_since.pop(group, None)

    def emptied(self, group: str) -> None:
        """Record that no local session is in a group any more."""
        self._empty_since[group] = asyncio.get_running_loop().time()

    async def leave_empty(self, linger: float) -> None:
        """Leave the groups that have had no session for `linger` seconds.

        Raises what the layer raises.
        """
        due = self._take_due(asyncio.get_running_loop().time() - linger)
        if not due:
            return
        self._joined.difference_update(due)
        leaving = asyncio.ensure_future(groups_discard(self._layer, due, self.channel))
        self._leaving.update(dict.fromkeys(due, leaving))
        try:
            await leaving
        finally:
            for group in due:
                del self._leaving[group]

    def _take_due(self, limit: float) -> list[str]:
        """Remove and return the joined groups that became empty before `limit`, loop time."""
        due = []
        # The dict keeps the order in which groups became empty.
        for group, since in self._empty_since.items():
            if since > limit:
                break
            if group not in self._joining:
                due.append(group)
        for group in due:
            del self._empty_since[group]
        return [group for group in due if group in self._joined]

    async def leave_all(self) -> None:
        """Leave the layer. Raises what the layer raises."""
        groups = [*self._joined, *self._joining]
        self._joined.clear()
        if self.channel:
            await leave(self._layer, groups, self.channel)
