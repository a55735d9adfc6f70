"""Streams against a model: random faults side by side, and what each session may be sent.

A scenario is one room, with random acts: pushes, a message that is committed late with a lower id,
drains that are cut off between their two transactions, batches in slow slices, envelopes that are
lost or come twice, a lost layer, a slow database, sessions that come, go, leave and come back with
their position or with the id of their last event. `harsh` ones also let messages pass out of the
window, and change the epoch: then gaps may be told. In all others there is none.

The environment variable STREAMS_SEED repeats one scenario.
"""

import asyncio
import json
import os
import random
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import transaction

from accounts.auth_body import RoomRequest
from imgo_site.errors import Unavailable
from offline import outbox_queue, stream_retention
from offline import streams as kept
from offline.models import Stream, StreamMessage
from push.accept.accept import Push, accept_push
from push.fanout import drain
from push.node import streams as streams_of_node
from push.node.node import Node
from push.node.stream_joins import StreamJoin
from push.session.event_ids import parse_event_id
from push.session.outgoing import Kind
from push.session.session import Session
from push.wire import Op
from tests import eventually, in_thread
from tests.push.sessions import admit, events

SEED = os.environ.get("STREAMS_SEED", "")
SESSIONS_MAX = 12
ROUNDS = 14


@pytest.fixture(autouse=True)
def _policies(imgo, monkeypatch):
    rooms = {"few-*": {"history": 3}, "chat-*": {"history": 100_000}}
    imgo(ROOMS=rooms, PARTITIONS=1, BATCH_WINDOW=0.002, BATCH_MAX=3)
    monkeypatch.setattr("push.node.coalescer.YIELD_AFTER", 2)  # batches are written in slices
    monkeypatch.setattr("push.node.streams.PAGE", 5)
    monkeypatch.setattr("push.node.stream_joins.PAGE", 5)
    monkeypatch.setattr("push.node.event_ids.INTERVAL", 0.01)


@dataclass
class Follower:
    """A session in the room, since its last join, and what it may be sent next."""

    session: Session
    epoch: str = ""
    offset: int = 0
    read: int = 0  # writes that were looked at
    bodies: dict[tuple[str, int], Any] = field(default_factory=dict)
    gaps: int = 0
    last_id: str = ""
    is_in: bool = False


class Scenario:
    """One room, and what is done to it."""

    def __init__(self, node: Node, seed: str, *, is_harsh: bool) -> None:
        self.node = node
        self.draw = random.Random(seed)
        self.is_harsh = is_harsh
        self.room = f"{'few' if is_harsh else 'chat'}-{seed}"
        self.followers: list[Follower] = []
        self.count = 0  # pushes
        self.failed: list[str] = []
        self.late = asyncio.Lock()

    async def run(self) -> None:
        """Acts side by side, round after round, then look at everything."""
        acts = (
            [self.push] * 6 + [self.come] * 3 + [self.go, self.leave_and_join, self.reconnect] * 2
        )
        acts += [self.commit_late, self.cut_drain, self.lose, self.repeat, self.lose_layer]
        if self.is_harsh:
            acts += [self.empty, self.change_epoch]
        for _ in range(ROUNDS):
            await asyncio.gather(
                *(self._after_some_turns(self.draw.choice(acts)) for _ in range(4))
            )
            self.look()
        await self.settle()

    async def _after_some_turns(self, act: Callable[[], Any]) -> None:
        for _ in range(self.draw.randrange(6)):
            await asyncio.sleep(0)
        with suppress(Unavailable):  # Redis, on a busy machine: that session is not let in
            await act()

    # Messages

    def _next(self) -> Push:
        self.count += 1
        return Push(b"%d" % self.count, room=self.room)

    async def push(self) -> None:
        await in_thread(self._push, [self._next() for _ in range(self.draw.randint(1, 3))])

    @staticmethod
    def _push(pushes: list[Push]) -> None:
        for push in pushes:
            accept_push(push)
        drain(0)

    async def commit_late(self) -> None:
        """A message gets its id, and is committed behind others with higher ones."""
        may_commit, has_id = threading.Event(), threading.Event()
        push = self._next()

        def late() -> None:
            try:
                with transaction.atomic():
                    accept_push(push)
                    has_id.set()
                    may_commit.wait(10)
                drain(0)
            finally:
                has_id.set()

        async with self.late:  # each holds a connection of the pool
            task = asyncio.create_task(in_thread(late))
            try:
                await asyncio.to_thread(has_id.wait)
                await self.push()
            finally:
                may_commit.set()
                await task

    async def cut_drain(self) -> None:
        """Offsets are given and committed, and nothing is published: the next drain does it."""
        await in_thread(self._assign, self._next(), is_lost=False)

    async def lose(self) -> None:
        """What is published reaches no node."""
        await in_thread(self._assign, self._next(), is_lost=True)

    @staticmethod
    def _assign(push: Push, *, is_lost: bool) -> None:
        accept_push(push)
        with outbox_queue.draining(0, wait=True):
            rows = outbox_queue.read_page(0, 0, 100)
            places = kept.places_of(rows)
            kept.assign([row.message for row in rows if row.message_id not in places])
            if is_lost:
                outbox_queue.delete_rows(rows)

    async def repeat(self) -> None:
        """A drain's envelopes come twice, by a publisher that got no answer."""
        handle = self.node.hub.handle
        seen: list[Any] = []

        def keep(message: Any) -> None:
            seen.append(message)
            handle(message)

        self.node.hub.handle = keep  # type: ignore[method-assign]
        try:
            await self.push()
        finally:
            self.node.hub.handle = handle  # type: ignore[method-assign]
        for message in seen:
            handle(message)

    async def lose_layer(self) -> None:
        self.node.layer_lost()
        await asyncio.sleep(0)
        self.node.layer_regained()

    # What only harsh scenarios have

    async def empty(self) -> None:
        await in_thread(stream_retention.empty, self.room)

    async def change_epoch(self) -> None:
        await in_thread(Stream.objects.filter(room=self.room).update, cluster="another")

    # Sessions

    async def _admit(self) -> Follower:
        kind = self.draw.choice([Kind.TEXT, Kind.EVENTS])
        session = await admit(self.node, f"u{len(self.followers)}", kind=kind)
        session.release()
        session.set_names(True)
        follower = Follower(session)
        self.followers.append(follower)
        return follower

    async def come(self) -> None:
        if sum(follower.is_in for follower in self.followers) >= SESSIONS_MAX:
            return
        follower = await self._admit()
        state = (await in_thread(kept.read_states, [self.room]))[self.room]
        requests = [
            RoomRequest(),
            RoomRequest(rewind=self.draw.randint(1, 9)),
            RoomRequest(state.epoch, self.draw.randint(0, state.top)),
        ]
        await self._join(follower, self.draw.choice(requests))

    async def _join(self, follower: Follower, request: RoomRequest) -> None:
        session = follower.session

        def told(join: StreamJoin) -> None:
            self.look()
            follower.epoch, follower.offset = join.position
            if request.epoch is not None and not self.is_harsh and not join.recovered:
                self.failed.append(f"{session.id} was not recovered from {request}")
            if session.kind is Kind.EVENTS and session.event_ids is None:
                place = {self.room: join.position}
                session.link.write(self.node.hub.event_ids.begin(session, place))
            follower.is_in = True

        try:
            await self.node.membership.join_stream(session, self.room, request, told)
        except BaseException:
            follower.is_in = False
            raise

    def _one(self) -> Follower | None:
        inside = [follower for follower in self.followers if follower.is_in]
        if not inside:
            return None
        found = self.draw.choice(inside)
        found.is_in = False  # nobody else takes it
        return found

    async def go(self) -> Follower | None:
        follower = self._one()
        if follower is not None:
            await self.node.dismiss(follower.session)
            self.look_at(follower)
        return follower

    async def reconnect(self) -> None:
        """A session ends, and another one comes from where its client was."""
        old = await self.go()
        if old is None:
            return
        request = RoomRequest(old.epoch, old.offset)
        if old.session.kind is Kind.EVENTS and old.last_id:
            positions = parse_event_id(old.last_id)
            place = positions and positions.of(self.room)
            assert place, old.last_id
            if place.epoch == old.epoch and place.offset > old.offset:
                self.failed.append(f"{old.session.id} at {old.offset} has the id {place}")
            request = RoomRequest(*place)
        await self._join(await self._admit(), request)

    async def leave_and_join(self) -> None:
        follower = self._one()
        if follower is None:
            return
        if follower.session.kind is Kind.EVENTS:
            await self.node.dismiss(follower.session)  # ids of a room that is left are another test
            return
        await self.node.membership.leave(follower.session, self.room)
        self.look_at(follower)
        await self._join(follower, RoomRequest(follower.epoch, follower.offset))

    # What was sent

    def look(self) -> None:
        for follower in self.followers:
            self.look_at(follower)

    def look_at(self, follower: Follower) -> None:
        """Each message is the next one of its session, or a gap was told."""
        link = follower.session.link
        written, follower.read = link.written[follower.read :], len(link.written)
        for data in written:
            for frame in self._frames(follower, data):
                if frame["op"] == Op.STREAM_GAP:
                    self._take_gap(follower, frame["body"])
                elif frame["op"] == Op.MESSAGE and frame.get("offset"):
                    self._take(follower, frame)

    @staticmethod
    def _frames(follower: Follower, data: bytes) -> list[dict[str, Any]]:
        if follower.session.kind is Kind.TEXT:
            found: list[dict[str, Any]] = json.loads(data)
            return found
        frames = []
        for event in events(data):
            if event.id is not None:
                follower.last_id = event.id
            if event.data:
                frames.append(event.value)
        return frames

    def _take(self, follower: Follower, frame: dict[str, Any]) -> None:
        if frame["offset"] != follower.offset + 1:
            self.failed.append(
                f"{follower.session.id} got {frame['offset']} behind {follower.offset}"
            )
        follower.offset = frame["offset"]
        follower.bodies[follower.epoch, follower.offset] = frame["body"]

    def _take_gap(self, follower: Follower, body: dict[str, Any]) -> None:
        follower.gaps += 1
        if body["epoch"] == follower.epoch and body["offset"] < follower.offset:
            self.failed.append(f"{follower.session.id} at {follower.offset} was told {body}")
        follower.epoch, follower.offset = body["epoch"], body["offset"]

    async def settle(self) -> None:
        """All that is stored arrives, and is the same for all."""
        await in_thread(drain, 0)
        await self.node.hub.streams.check()
        state = (await in_thread(kept.read_states, [self.room]))[self.room]
        inside = [follower for follower in self.followers if follower.is_in]

        def are_there() -> bool:
            self.look()
            return all((f.epoch, f.offset) == (state.epoch, state.top) for f in inside)

        with suppress(AssertionError):
            await eventually(are_there, 5)
        self.failed += [
            f"{f.session.id} is at {f.epoch} {f.offset}, the stream at {state}"
            for f in inside
            if (f.epoch, f.offset) != (state.epoch, state.top)
        ]
        await self._compare(state.top)
        for follower in inside:
            await self.node.dismiss(follower.session)

    async def _compare(self, top: int) -> None:
        rows = await in_thread(self._stored)
        by_offset: dict[int, Any] = {}
        for follower in self.followers:
            for (_, offset), body in follower.bodies.items():
                if by_offset.setdefault(offset, body) != body:
                    self.failed.append(f"the offset {offset} is {body} and {by_offset[offset]}")
        if top != self.count:
            self.failed.append(f"{self.count} pushes have {top} offsets")
        if self.is_harsh:
            return
        if [offset for offset, _ in rows] != list(range(1, top + 1)):
            self.failed.append(f"the stream has {[offset for offset, _ in rows]}")
        if sorted(body for _, body in rows) != list(range(1, self.count + 1)):
            self.failed.append("a message is missing in the stream, or has two offsets")
        if any(by_offset.get(offset, body) != body for offset, body in rows):
            self.failed.append("a session got another message than is stored")
        if sum(follower.gaps for follower in self.followers):
            self.failed.append("a gap was told, and nothing was missing")

    def _stored(self) -> list[tuple[int, int]]:
        rows = StreamMessage.objects.filter(stream__room=self.room).order_by("offset")
        return [(row.offset, int(bytes(row.body))) for row in rows]


class SlowLoader:
    """A loader whose answers take a random time, or fail now and then."""

    def __init__(self, loader: Any, draw: random.Random) -> None:
        self._loader = loader
        self._draw = draw

    async def get(self, key: Any) -> Any:
        """What the loader gives, later."""
        for _ in range(self._draw.choice([0, 0, 0, 1, 20])):
            await asyncio.sleep(0)
        found = await self._loader.get(key)
        await asyncio.sleep(self._draw.choice([0, 0, 0.001, 0.01]))
        return found


class SlowTurns:
    """asyncio, but for turns of the event loop that take a random time."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds + self._draw.choice([0, 0, 0.005, 0.02]))


async def play(node: Node, monkeypatch: pytest.MonkeyPatch, seed: str, *, is_harsh: bool) -> None:
    draw = random.Random(seed)
    with monkeypatch.context() as patch:
        for module in ("push.node.streams", "push.node.stream_joins"):
            slow = SlowLoader(streams_of_node.stream_pages, draw)
            patch.setattr(f"{module}.stream_pages", slow)
        patch.setattr(
            "push.node.streams.stream_states", SlowLoader(streams_of_node.stream_states, draw)
        )
        patch.setattr("push.node.coalescer.asyncio", SlowTurns(draw))  # between slices of a batch
        scenario = Scenario(node, seed, is_harsh=is_harsh)
        await scenario.run()
    assert not scenario.failed, f"STREAMS_SEED={seed}: {scenario.failed[:5]}"


async def run_many(node: Node, monkeypatch: pytest.MonkeyPatch, count: int, is_harsh: bool) -> None:
    for seed in [SEED] if SEED else [secrets.token_hex(4) for _ in range(count)]:
        await play(node, monkeypatch, seed, is_harsh=is_harsh)


@pytest.mark.long(but=["embedded-mild", "embedded-harsh"])
@pytest.mark.parametrize("is_harsh", [False, True], ids=["mild", "harsh"])
async def test_each_session_has_each_offset_once_or_is_told(node, monkeypatch, is_harsh):
    await run_many(node, monkeypatch, 1, is_harsh)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_harsh", [False, True], ids=["mild", "harsh"])
async def test_many_scenarios(node, monkeypatch, is_harsh):
    """40 scenarios of 56 acts, in each of four cases: 8,960 acts."""
    await run_many(node, monkeypatch, 40, is_harsh)
