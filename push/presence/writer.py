"""Writer of a node's keys into the store of presence.

It does not write events but states. A key that changed here is *dirty*. When its turn comes, the
writer sends what holds then: the node has the key in the room, or it has not. So a write may be
repeated after any failure, and only the last state of a key matters.

All dirty keys of one turn go together. While they are under way, the next turn collects. A storm
of clients becomes a few large edits.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from imgo_site.errors import Unavailable
from push.bus.background_tasks import Background
from push.presence.base import EDIT_MAX, Change, Edit, EditReply, Entered, PresenceStore
from push.presence.local_room import LocalRoom

EDITS_TOGETHER = 20  # edits sent at once
NOT_WRITTEN = "Who is in the room could not be stored; try again."


class Owner(Protocol):
    """The parts of a node's presence that the writer uses."""

    store: PresenceStore
    rooms: dict[str, LocalRoom]
    background: Background

    def changed(self, change: Change) -> None:
        """Take a change of a room."""

    async def renew(self) -> None:
        """Renew the lease; if it was lost, all keys become dirty."""

    async def written(self) -> None:
        """Go on when everything was written: no key is dirty."""

    def drop_if_empty(self, room: str) -> None:
        """Forget a room in which the node holds no key."""


class PresenceWriter:
    """Writer of one node."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._dirty: dict[str, dict[str, None]] = {}  # room → keys
        self._next: asyncio.Future[Unavailable | None] | None = None  # the end of the next turn
        self._task: asyncio.Task[None] | None = None

    def has(self, room: str) -> bool:
        """Return whether a key of the room is dirty."""
        return room in self._dirty

    @property
    def is_idle(self) -> bool:
        """Return whether no key is dirty."""
        return not self._dirty

    def mark(self, room: str, keys: Iterable[str]) -> None:
        """Make keys dirty. `begin` starts the writing."""
        marked = self._dirty.setdefault(room, {})
        local = self._owner.rooms.get(room)
        for key in keys:
            marked[key] = None
            if local is not None and (member := local.members.get(key)) is not None:
                member.is_written = False

    def begin(self) -> None:
        """Write the dirty keys, unless that is under way."""
        if self._task is None:
            self._task = self._owner.background.run(self._run())

    async def until_written(self, room: str, key: str) -> None:
        """Wait until a key has been written, or is not here any more. Raises `Unavailable`."""
        while True:
            local = self._owner.rooms.get(room)
            member = local.members.get(key) if local is not None else None
            if member is None or member.is_written:
                return
            self.begin()
            turn = self._turn()
            await asyncio.wait([turn])
            if (error := turn.result()) is not None:
                raise error

    def _turn(self) -> "asyncio.Future[Unavailable | None]":
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    async def _run(self) -> None:
        error: Unavailable | None = None
        try:
            while error is None:
                dirty, self._dirty = self._dirty, {}
                turn, self._next = self._next, None
                try:
                    if dirty:
                        await self._write(dirty)
                    if self.is_idle:
                        await self._owner.written()
                except Unavailable as caught:
                    error = caught
                finally:
                    _end(turn, error)
                if self.is_idle and self._next is None:
                    return
        finally:
            self._task = None
            _end(self._next, Unavailable(NOT_WRITTEN) if error is None else error)
            self._next = None

    async def _write(self, dirty: dict[str, dict[str, None]]) -> None:
        """Write these keys; those that could not be written become dirty again."""
        edits = [edit for room, keys in dirty.items() for edit in self._edits(room, list(keys))]
        error: Exception | None = None
        is_refused = False
        for start in range(0, len(edits), EDITS_TOGETHER):
            part = edits[start : start + EDITS_TOGETHER]
            try:
                replies = await self._owner.store.edit(part)
            except BaseException:
                for edit in edits[start:]:
                    self._mark_again(edit)
                raise
            for edit, reply in zip(part, replies, strict=True):
                if isinstance(reply, Exception):
                    error = reply
                    self._mark_again(edit)
                elif reply.is_refused:
                    is_refused = True
                    self._mark_again(edit)
                else:
                    self._done(edit, reply)
        if is_refused:
            await self._owner.renew()
        if error is not None:
            raise error

    def _edits(self, room: str, keys: list[str]) -> Iterable[Edit]:
        local = self._owner.rooms.get(room)
        members = local.members if local is not None else {}
        for start in range(0, len(keys), EDIT_MAX):
            entered, left = [], []
            for key in keys[start : start + EDIT_MAX]:
                if (member := members.get(key)) is not None:
                    entered.append(Entered(key, member.at, member.info))
                else:
                    left.append(key)
            if local is not None:
                local.edits += 1
            yield Edit(room, entered, left)

    def _mark_again(self, edit: Edit) -> None:
        self.mark(edit.room, [*(row.key for row in edit.entered), *edit.left])

    def _done(self, edit: Edit, reply: EditReply) -> None:
        marked = self._dirty.get(edit.room, {})
        local = self._owner.rooms.get(edit.room)
        if local is not None:
            for row in edit.entered:
                local.deferred.discard(row.key)
                if row.key not in marked and (member := local.members.get(row.key)) is not None:
                    member.is_written = True
            local.deferred.difference_update(edit.left)
            local.deferred.update(reply.deferred)
        if reply.change is not None:
            self._owner.changed(reply.change)
        self._owner.drop_if_empty(edit.room)

    async def stop(self) -> None:
        """Stop the writer's task, and wait until it has ended; dirty keys stay unwritten."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


def _end(turn: "asyncio.Future[Unavailable | None] | None", error: Unavailable | None) -> None:
    if turn is not None and not turn.done():
        turn.set_result(error)
