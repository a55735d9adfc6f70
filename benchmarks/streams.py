"""streams: rooms with history beside plain ones, and a storm of clients that come back."""

import json
import statistics
import time
from contextlib import closing
from typing import Any

from benchmarks.bench import ROOM, Bench, Target
from benchmarks.client import Client
from benchmarks.load import Load
from benchmarks.servers import KEPT_ROOM, Node

FANOUT_TARGET = Target(1.1, "× plain", of_ratio=True)
MEMORY_TARGET = Target(100, "bytes more")
RECOVERY_TARGET = Target(50_000, "/CPU s", at_least=True)
STORM_TARGET = Target(5, "s")
CHUNKS = 8  # of the rounds, for the median
BODY = "^" + "x" * 7
MISSED = 50  # messages of each session that comes back
INFLIGHT = 64  # what many that open at once need for a moment is not what a session weighs
SETTLE = 2.0  # seconds after opening: the last tasks end
FIRST = 300_000  # number of the first key: no other scenario has them


def run(bench: Bench) -> None:
    # A client for each part: the server closes a connection that is idle while memory is measured.
    with closing(bench.client()) as client:
        _fan_out(bench, client)
    _memory(bench)
    with closing(bench.client()) as client:
        _recovery(bench, client)


def _auths(bench: Bench, count: int, first: int, rooms: Any) -> list[bytes]:
    """Auth bodies with this value of `rooms`."""
    bodies = [json.loads(body) for body in bench.auths(count, first, jwts=True)]
    return [json.dumps({**body, "rooms": rooms}).encode() for body in bodies]


def _fan_out(bench: Bench, client: Client) -> None:
    """A message a frame to a plain room and to one with history, by turns, on one node."""
    sessions = bench.sizes(2000, 5000)
    rounds = max(3, bench.sizes(20_000, 60_000) // sessions)  # of a chunk
    node = bench.stack.node()
    try:
        with Load() as plain, Load() as kept:
            bench.step(f"{sessions:,} sessions in each room: opening")
            bench.open(plain, node, "websocket", _auths(bench, sessions, FIRST, [ROOM]))
            asked = {KEPT_ROOM: {}}
            bench.open(kept, node, "websocket", _auths(bench, sessions, 2 * FIRST, asked))
            both = ((plain, ROOM), (kept, KEPT_ROOM))
            spent: dict[str, list[float]] = {ROOM: [], KEPT_ROOM: []}
            for chunk in range(CHUNKS + 1):  # the first one warms up
                bench.step(f"{sessions:,} sessions in each room: {chunk} of {CHUNKS}")
                cpu = {room: 0.0 for _, room in both}
                for _ in range(rounds):
                    for load, room in both:
                        cpu[room] += _round(node, client, load, room)
                if chunk:
                    for room, seconds in cpu.items():
                        spent[room].append(seconds)
    finally:
        bench.stack.stop(node)
    ratios = [k / p for k, p in zip(spent[KEPT_ROOM], spent[ROOM], strict=True)]
    bench.row(
        f"fan-out to a room with history, 1 message a frame, {sessions:,} sessions",
        sum(spent[KEPT_ROOM]) / (rounds * sessions * CHUNKS) * 1e6,
        "µs/frame",
        ratio=statistics.median(ratios),
        ratio_of="plain",
        target=FANOUT_TARGET,
        details={"cpu_s": spent, "ratios": ratios, "rounds": rounds},
    )


def _round(node: Node, client: Client, load: Load, room: str) -> float:
    """A message to the room, up to its last byte; the CPU seconds of the node."""
    load.expect()
    before = node.cpu()
    client.push({"to": {"room": room}, "body": BODY})
    load.wait()
    return node.cpu() - before


def _memory(bench: Bench) -> None:
    """User space of a session in a room with history, more than of one in a plain room."""
    few, many = bench.sizes((1000, 5000), (2000, 19_000))
    slopes = {}
    for name, rooms in (("plain", [ROOM]), ("kept", {KEPT_ROOM: {}})):
        node = bench.stack.node()
        try:
            with Load() as load:
                sizes = []
                for count, first in ((few, 0), (many - few, few)):
                    bench.step(f"memory of {few:,} and {many:,} sessions in a {name} room")
                    auths = _auths(bench, count, 3 * FIRST + first, rooms)
                    bench.open(load, node, "websocket", auths, first, inflight=INFLIGHT)
                    time.sleep(SETTLE)
                    sizes.append(node.memory()["private"])
        finally:
            bench.stack.stop(node)
        slopes[name] = (sizes[1] - sizes[0]) / (many - few)
    bench.row(
        f"memory per idle session in a room with history, {few:,} to {many:,} sessions",
        slopes["kept"] - slopes["plain"],
        "bytes more",
        target=MEMORY_TARGET,
        details=slopes,
    )


def _recovery(bench: Bench, client: Client) -> None:
    """Sessions of one room that come back to a fresh node, each with messages to catch up."""
    sessions = bench.sizes(2000, 5000)
    position = client.get(f"/api/v1/rooms/{KEPT_ROOM}/position")
    for _ in range(MISSED):
        client.push({"to": {"room": KEPT_ROOM}, "body": BODY})
    asked = {KEPT_ROOM: {"epoch": position["epoch"], "offset": position["offset"]}}
    bench.stack.drain()
    node = bench.stack.node()
    try:
        with Load() as load:
            bench.step(f"{sessions:,} sessions: opening without a position")
            plain = _auths(bench, sessions, 4 * FIRST, {KEPT_ROOM: {}})
            opened = bench.open(load, node, "websocket", plain)
        bench.stack.stop(node)
        node = bench.stack.node()
        with Load() as load:
            bench.step(f"{sessions:,} sessions: coming back, {MISSED} missed each")
            auths = _auths(bench, sessions, 4 * FIRST, asked)
            cpu, began = node.cpu(), time.monotonic()
            bench.open(load, node, "websocket", auths)
            load.expect(MISSED)
            load.wait()
            wall, cpu = time.monotonic() - began, node.cpu() - cpu
    finally:
        bench.stack.stop(node)
    details = {"wall_s": wall, "node_cpu_s": cpu, "of_opening_s": opened["node_cpu_s"]}
    bench.row(
        f"{sessions:,} sessions recover {MISSED} messages each",
        sessions * MISSED / cpu,
        "messages/CPU s",
        target=RECOVERY_TARGET,
        # Recovery costs less than two storms of openings differ in.
        note=f"with the opening of the sessions: {cpu:.1f} CPU s, alone {opened['node_cpu_s']:.1f}",
        details=details,
    )
    bench.row(
        f"{sessions:,} sessions have come back and caught up",
        wall,
        "s",
        target=STORM_TARGET,
        note=f"opening alone takes {opened['wall_s']:.1f} s",
        details=details,
    )
