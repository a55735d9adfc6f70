"""fanout: CPU per delivered frame of a room message, beside the send floor, and batched bursts."""

import statistics
import time
from dataclasses import dataclass
from dataclasses import field as made_by

from benchmarks.bench import BODIES, FRAME, ROOM, Bench, Target
from benchmarks.client import Client
from benchmarks.generator import Opening, Transport
from benchmarks.load import Load
from benchmarks.servers import HOST, Floor, Node
from benchmarks.stock_baseline import SESSIONS as STOCK_SESSIONS
from benchmarks.stock_baseline import stock

FLOOR_TARGET = Target(1.15, "× floor", of_ratio=True)
BATCH_TARGET = Target(5_000_000, "/CPU s", at_least=True)
CHUNKS = 8  # of the rounds, for the median
BURST_MESSAGES = (200, 400)  # of one burst: several full batches of 40
BURST_DELIVERIES = 600_000  # of one burst, within these bounds
BURST_CPU = 2.0  # node CPU seconds after which no further burst is sent
BURSTS = 8
LARGEST = 19_500  # sessions that a process with 20,000 files can hold


@dataclass
class Single:
    """CPU seconds of node and floor for the same frames to the same number of sessions."""

    sessions: int
    node: list[float] = made_by(default_factory=list)
    floor: list[float] = made_by(default_factory=list)
    frames: int = 0  # of one chunk

    @property
    def us(self) -> float:
        """Node, µs a frame."""
        return sum(self.node) / (self.frames * len(self.node)) * 1e6

    @property
    def floor_us(self) -> float:
        """Floor, µs a frame."""
        return sum(self.floor) / (self.frames * len(self.floor)) * 1e6

    @property
    def ratios(self) -> list[float]:
        """× floor of each chunk."""
        return [node / floor for node, floor in zip(self.node, self.floor, strict=True)]

    @property
    def ratio(self) -> float:
        """× floor: the median, because a noisy neighbour during one chunk is no news of ours."""
        return statistics.median(self.ratios)


def run(bench: Bench) -> None:
    for sessions in bench.sizes((1000, 5000), (1000, 5000, LARGEST)):
        for transport in ("websocket", "tcp"):
            measure(bench, transport, sessions)
        measure(bench, "sse", sessions, batched=False)
    baseline = stock(bench)
    floor = bench.known["fanout"]["websocket", 1000].floor_us
    bench.row(
        f"stock Channels, 1 message a frame, {STOCK_SESSIONS:,} sessions",
        baseline["us_per_frame"],
        "µs/frame",
        ratio=baseline["us_per_frame"] / floor,
        ratio_of="floor",
        details=baseline,
    )


@dataclass
class Field:
    """A node and the floor, each with its sessions."""

    transport: Transport
    node: Node
    client: Client
    load: Load
    floor: Floor
    floor_load: Load

    def node_round(self) -> None:
        """A message to the room, up to its last byte."""
        self.load.expect()
        self.client.push({"to": {"room": ROOM}, "body": BODIES[self.transport]})
        self.load.wait()

    def floor_round(self) -> float:
        """The same by the floor; the CPU seconds of its loop."""
        self.floor_load.expect()
        cpu = float(self.floor.ask(f"send {FRAME}"))
        self.floor_load.wait()
        return cpu


def measure(bench: Bench, transport: Transport, sessions: int, *, batched: bool = True) -> Single:
    """One size of one transport, with a fresh node."""
    bench.step(f"{sessions:,} sessions, {transport}: opening")
    client, node, floor = bench.client(), bench.stack.node(), Floor(bench.stack.home)
    try:
        with Load() as load, Load() as floor_load:
            bench.open(load, node, transport, bench.auths(sessions, rooms=[ROOM]))
            floor.tell(f"accept {sessions}")
            floor_load.open(Opening([(HOST, floor.port)], "plain", [b""] * sessions))
            floor.answer()
            field = Field(transport, node, client, load, floor, floor_load)
            single = _single(bench, field)
            if batched:
                _batched(bench, field)
    finally:
        floor.stop()
        bench.stack.stop(node)
        client.close()
    bench.known.setdefault("fanout", {})[transport, sessions] = single
    return single


def _single(bench: Bench, on: Field) -> Single:
    """One message a frame; each round waits for the last byte of the one before."""
    sessions = on.load.sessions
    rounds = max(3, bench.sizes(20_000, 60_000) // sessions)  # of a chunk
    single = Single(sessions, frames=rounds * sessions)
    on.node_round()
    size, before, wall = on.load.poll().size, on.load.cpu(), 0.0
    for chunk in range(CHUNKS):
        bench.step(f"{sessions:,} sessions, {on.transport}: single, {chunk + 1} of {CHUNKS}")
        node = floor = 0.0
        for _ in range(rounds):
            # By turns: both see the same weather, and caches that others have used in between.
            floor += on.floor_round()
            cpu, began = on.node.cpu(), time.monotonic()
            on.node_round()
            node += on.node.cpu() - cpu
            wall += time.monotonic() - began
        single.node.append(node)
        single.floor.append(floor)
    share = bench.note_generator(on.load, before, wall)
    frames = single.frames * CHUNKS
    bench.row(
        f"1 message a frame, {on.transport}, {sessions:,} sessions",
        single.us,
        "µs/frame",
        ratio=single.ratio,
        ratio_of="floor",
        target=FLOOR_TARGET,
        note=f"median of {CHUNKS} chunks: {min(single.ratios):.2f} to {max(single.ratios):.2f}",
        details={
            "floor_us": single.floor_us,
            "ratio_of_chunks": single.ratios,
            "ratio_of_sums": sum(single.node) / sum(single.floor),
            "frames": frames,
            "bytes_per_frame": (on.load.poll().size - size) / frames,
            "wall_s": wall,
            "generator_share_of_a_core": share,
        },
    )
    return single


def _batched(bench: Bench, on: Field) -> None:
    """Many room messages accepted in one array, so that they arrive together."""
    load, node, sessions = on.load, on.node, on.load.sessions
    fewest, most = BURST_MESSAGES
    messages = min(most, max(fewest, BURST_DELIVERIES // sessions))
    push = {"to": {"room": ROOM}, "body": BODIES[on.transport]}
    size, before, began = load.poll().size, load.cpu(), time.monotonic()
    cpu, bursts = node.cpu(), 0
    bench.step(f"{sessions:,} sessions, {on.transport}: bursts of {messages} messages")
    while bursts < BURSTS and node.cpu() - cpu < BURST_CPU:
        bursts += 1
        load.expect(messages)
        on.client.push([push] * messages)
        load.wait(120)
    used, wall = node.cpu() - cpu, time.monotonic() - began
    delivered = bursts * messages * sessions
    bench.row(
        f"bursts of {messages} messages, {on.transport}, {sessions:,} sessions",
        delivered / used,
        "messages/CPU s",
        target=BATCH_TARGET,
        details={
            "bursts": bursts,
            "messages": delivered,
            "node_cpu_s": used,
            "wall_s": wall,
            "messages_per_s": delivered / wall,
            "bytes_per_message": (load.poll().size - size) / delivered,
            "generator_share_of_a_core": bench.note_generator(load, before, wall),
        },
    )
