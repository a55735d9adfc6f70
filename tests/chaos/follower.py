"""Followers: devices that follow a room with history, and keep their position as they come back.

Every other one does so over Server-Sent Events, with the id of its last event.

In the history a follower is a key of its own, because each of them is to have every message.
"""

from typing import TYPE_CHECKING, Any

from tests.e2e.clients import Closed
from tests.e2e.frames import AUTH, AUTH_REPLY, DISCONNECT, MESSAGE, STREAM_GAP, Frame

from .device import EVENTS, Device

if TYPE_CHECKING:
    from .load import Load


class Follower(Device):
    """A device that follows a room. `told`: what it was told that cannot be true of such a room."""

    def __init__(self, load: "Load", number: int, room: str) -> None:
        transport = EVENTS if number % 2 else "text"
        super().__init__(load, f"{room}/{number}", f"{room}#{number}", transport, acks=False)
        self.room = room
        self.told: list[str] = []
        self._position: dict[str, Any] = {}
        self._last_id = ""  # of the last event

    @property
    def _history(self) -> Any:
        return self._load.kept

    async def _authenticate(self, client: Any) -> None:
        """Open the session from the position that the follower has."""
        rooms: Any = {self.room: self._position}
        if self.transport == EVENTS:
            rooms = [self.room]
            client.last_id = self._last_id
            if self._position and not self._last_id:
                self.told.append(f"{self.name} at {self._position} was given no id")
        await client.send(AUTH, {"token": self._load.tokens[self.key], "rooms": rooms})
        reply = await client.receive()
        if reply.op == DISCONNECT:
            raise Closed(reply.value["code"], reply.value["reason"])
        assert reply.op == AUTH_REPLY, f"instead of an auth reply: {reply}"
        (place,) = reply.value["rooms"].values()
        if not self._position:
            self._position = {"epoch": place["epoch"], "offset": place["offset"]}
        elif not place.get("recovered"):
            self.told.append(f"{self.name} at {self._position} was not recovered: {place}")
            self._position = {"epoch": place["epoch"], "offset": place["offset"]}

    async def _stay(self, client: Any) -> int | None:
        try:
            return await super()._stay(client)
        finally:
            # All events that came have been taken.
            self._last_id = getattr(client, "last_id", "")

    async def _take(self, client: Any, frame: Frame) -> None:
        if frame.op == STREAM_GAP:
            self.told.append(f"{self.name} at {self._position} was told of a gap: {frame.value}")
            self._position = {name: frame.value[name] for name in ("epoch", "offset")}
        elif frame.op == MESSAGE:
            if frame.offset != self._position["offset"] + 1:
                self.told.append(f"{self.name} at {self._position} got offset {frame.offset}")
            self._position = {**self._position, "offset": frame.offset}
            assert self.session is not None
            self._history.received(self.session, frame.body.decode(), frame.id)
