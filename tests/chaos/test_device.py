"""Devices of a load: how they acknowledge."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any

from tests.e2e.clients import Client, Closed
from tests.e2e.frames import DISCONNECT, MESSAGE, Frame

from .device import ACKS_MAX, Device
from .history import History


class Reading(Client):
    """A client that reads these frames at once, and then that the connection has ended."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__()
        self._to_read = frames
        self.acknowledged: list[list[int]] = []
        self.received_at_ack: list[int] = []
        self.received = 0

    async def receive(self, timeout: float = 0) -> Frame:
        frame = await super().receive(timeout or 1)
        self.received += 1
        return frame

    async def ack(self, *frames: Frame) -> None:
        self.acknowledged.append([frame.id for frame in frames])
        self.received_at_ack.append(self.received)

    async def _read(self) -> list[Frame]:
        if not self._to_read:
            raise Closed
        frames, self._to_read = self._to_read, []
        return frames

    def abort(self) -> None:
        pass


def stay(frames: list[Frame]) -> Reading:
    """Have a device receive these frames until the connection ends."""
    load: Any = SimpleNamespace(random=random.Random(1), history=History(), rooms=History())
    device = Device(load, "u/0", "u", "text", acks=True)
    device.session = load.history.opened("u/0", "u")
    device._in_room = load.rooms.opened("u/0", "r")
    client = Reading(frames)
    asyncio.run(device._stay(client))
    assert len(device.session.receipts) == sum(frame.op == MESSAGE for frame in frames)
    return client


def messages(count: int) -> list[Frame]:
    return [Frame(2, MESSAGE, 0, b"%d" % number, number) for number in range(1, count + 1)]


def test_device_acknowledges_what_came_together_in_one_frame() -> None:
    client = stay(messages(ACKS_MAX + 3))
    first, rest = client.acknowledged
    assert first + rest == list(range(1, ACKS_MAX + 4))
    assert client.received_at_ack == [ACKS_MAX, ACKS_MAX + 3]


def test_device_acknowledges_what_came_before_a_disconnect() -> None:
    farewell = Frame(1, DISCONNECT, 0, b'{"code":4000,"reason":"","reconnect":true}')
    assert stay([*messages(2), farewell]).acknowledged == [[1, 2]]
