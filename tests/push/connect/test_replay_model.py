"""Replay against a model: sessions of one key come and go at random, on this node and on another.

Each session must get what it is sent in the order of the pushes, and no message is lost: in the end
each was received by a session. The environment variable REPLAY_SEED repeats one scenario.
"""

import asyncio
import os
import random
import secrets
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from imgo_site.conf import conf
from imgo_site.errors import Unavailable
from offline import key_messages
from offline.models import RECEIVED, Message, Outbox
from offline.node_io import Acknowledger, find_delivery, pending_pages
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import Push, accept_push
from push.bus.envelope import as_layer_message, message_envelope
from push.bus.group_names import key_group
from push.connect.replay import Replay
from push.node.gap_recovery import GapRecovery
from push.node.node import Node
from push.node.receipts import Receipts
from push.registry.base import Entry
from push.session.session import Session
from tests import in_thread
from tests.push.sessions import frames, make_session

SEED = os.environ.get("REPLAY_SEED", "")
ROUNDS = 40
LATE = 0.2  # seconds by which the time of a stored receipt may be late


class SlowLoader:
    """A loader whose answers take a random time."""

    def __init__(self, loader: Any, draw: random.Random) -> None:
        self.get = slow(loader.get, draw)


def slow(function: Any, draw: random.Random) -> Any:
    """The coroutine function, with a random time before and after it."""

    async def slowly(*args: Any) -> Any:
        await turns(draw)
        answer = await function(*args)
        await turns(draw)
        return answer

    return slowly


async def turns(draw: random.Random) -> None:
    for _ in range(draw.choice([0, 0, 1, 3, 10])):
        await asyncio.sleep(0)
    await asyncio.sleep(draw.choice([0, 0, 0, 0.002, 0.005]))


class Scenario:
    """One key, and what is done to it."""

    def __init__(self, node: Node, seed: str) -> None:
        self.node = node
        self.draw = random.Random(seed)
        self.key = f"u-{seed}"
        self.on_wire: deque[Message] = deque()
        self.count = 0  # pushes
        self.sent: list[list[int]] = []  # what each session was sent
        self.one_at_a_time = asyncio.Lock()  # pushes
        self.gap = asyncio.Lock()  # held while the layer's connection is lost

    async def run(self) -> None:
        """Acts side by side, round after round; then a last session takes what is left."""
        acts = [self.push] * 4 + [self.arrive] * 4 + [self.come_and_go] * 3
        acts += [self.other_node, self.flush, self.lose_layer]
        for _ in range(ROUNDS):
            await asyncio.gather(*(self._later(self.draw.choice(acts)) for _ in range(4)))
        while self.on_wire:
            await self.arrive()
        await self.flush()
        await self.come_and_go()

    async def _later(self, act: Any) -> None:
        await turns(self.draw)
        await act()

    async def push(self) -> None:
        async with self.one_at_a_time:
            self.count += 1
            row = await in_thread(self._push, self.count)
            self.on_wire.append(row)

    def _push(self, number: int) -> Message:
        message_id = accept_push(Push(b"%d" % number, keys=(self.key,)))
        Outbox.objects.all().delete()
        return Message.objects.get(pk=message_id)

    async def arrive(self) -> None:
        """The next message comes in from the layer."""
        if self.on_wire and not self.gap.locked():
            row = self.on_wire.popleft()
            envelope = message_envelope(key_group(self.key), row, self.key)
            self.node.hub.handle(as_layer_message(envelope))

    async def come_and_go(self) -> None:
        """A session of this node that does not acknowledge."""
        name = self.node.new_session_id()
        session = make_session(name, key=self.key, keeper=self.node.receipts)  # type: ignore[arg-type]
        session.is_connecting = True
        session.hold(conf.SESSION_BYTES)
        entry = Entry(name, self.key, self.node.id, "tcp", "192.0.2.1", "", time.time())
        with suppress(Unavailable):  # while the layer is lost
            await self.node.admit(session, entry, [])
            await self._replay(session)
        await self.node.dismiss(session)
        await asyncio.gather(*self.node.hub.background.tasks)
        self.sent.append([int(frame.body) for frame in frames(session)])

    async def _replay(self, session: Session) -> None:
        replay = Replay(self.node, session)
        while (page := await replay.next_page()) is not None:
            await replay.write(page, None)  # type: ignore[arg-type]
        session.is_connecting = False
        session.release()
        for _ in range(3):
            await turns(self.draw)

    async def other_node(self) -> None:
        """A session of another node gets what is pending, and its receipts are written late."""
        page = (await in_thread(key_messages.read_pending, [(self.key, 0)], 100))[self.key, 0]
        await turns(self.draw)
        receipts = [Receipt(message.id, self.key, RECEIVED, "other-1", 0.0) for message in page]
        await in_thread(self.record_late, receipts)
        self.sent.append([int(message.body) for message in page])

    async def lose_layer(self) -> None:
        """Messages that are published before the connection is back do not arrive."""
        async with self.gap:
            self.node.layer_lost()
            for _ in range(self.draw.randrange(3)):
                if self.on_wire:
                    self.on_wire.popleft()
            await turns(self.draw)
            self.node.layer_regained()

    def record_late(self, receipts: Sequence[Receipt], *, again: bool = False) -> int:
        """Write receipts as on a busy machine: the time that is stored is late."""
        late = self.draw.uniform(0, LATE)
        delayed = [receipt._replace(age=receipt.age - late) for receipt in receipts]
        return record_receipts(delayed, again=again)

    async def flush(self) -> None:
        """The node writes its receipts."""
        await self.node.acknowledger.stop()

    def failures(self) -> list[str]:
        """What no session may be sent, and what no session was sent."""
        missing = set(range(1, self.count + 1)).difference(*self.sent)
        failures = [f"lost: {sorted(missing)}"] if missing else []
        return failures + [f"out of order: {ids}" for ids in self.sent if ids != sorted(set(ids))]


async def play(node: Node, monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    scenario = Scenario(node, seed)
    with monkeypatch.context() as patch:
        patch.setattr("push.connect.replay.pending_pages", SlowLoader(pending_pages, scenario.draw))
        patch.setattr("push.node.receipts.find_delivery", slow(find_delivery, scenario.draw))
        patch.setattr("offline.node_io.settlement.record_receipts", scenario.record_late)
        await scenario.run()
    assert not scenario.failures(), f"REPLAY_SEED={seed}: {scenario.failures()}"


@pytest.fixture
async def node(node: Node) -> Node:
    """A node that writes receipts when it is told to."""
    await asyncio.gather(node.rounds.stop(), node.cluster_jobs.stop())
    node.acknowledger = Acknowledger()  # which does not run
    node.gap_recovery = GapRecovery(node.hub, node.acknowledger)
    node.receipts = Receipts(node.hub, node.acknowledger, node.rooms)
    return node


async def test_sessions_of_a_key_get_each_message_in_order(node, monkeypatch):
    await play(node, monkeypatch, SEED or secrets.token_hex(4))


@pytest.mark.long
async def test_many_scenarios(node, monkeypatch):
    for _ in range(10):
        await play(node, monkeypatch, secrets.token_hex(4))
