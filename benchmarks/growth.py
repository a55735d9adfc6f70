"""growth: what must not grow with the number of sessions, rooms and nodes."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from benchmarks import fanout, memory
from benchmarks.bench import BODIES, Bench, Target
from benchmarks.generator import Opening
from benchmarks.load import Load
from benchmarks.servers import Node

CPU_TARGET = Target(1.05, "×", of_ratio=True)
FLAT_TARGET = Target(1.15, "×", of_ratio=True)  # "flat" and "independent", give or take the noise
TARGETS = 200  # sessions, each its own key, that are pushed to
PUSHES = 1000  # of one array
ARRAYS = 4
IDLE = 3.0  # seconds over which the idle node is measured
ROOMS_EACH = 5


def run(bench: Bench) -> None:
    _frames(bench)
    _memory(bench)
    _key_pushes(bench)


def _frames(bench: Bench) -> None:
    largest = bench.sizes(5000, fanout.LARGEST)
    for transport in ("websocket", "tcp"):
        few, many = (_single(bench, transport, size) for size in (1000, largest))
        bench.row(
            f"CPU per frame, {transport}, {largest:,} sessions to 1,000",
            many.us,
            "µs/frame",
            ratio=many.us / few.us,
            ratio_of=f"{few.us:.2f} µs",
            target=CPU_TARGET,
            note=f"the floor itself: {many.floor_us / few.floor_us:.2f} ×",
            details={"floor_grew": many.floor_us / few.floor_us},
        )


def _single(bench: Bench, transport: Any, size: int) -> fanout.Single:
    known: dict[Any, fanout.Single] = bench.known.get("fanout", {})
    return known.get((transport, size)) or fanout.measure(bench, transport, size, batched=False)


def _memory(bench: Bench) -> None:
    for transport in ("websocket", "tcp"):
        points = memory.measure(bench, transport)
        slopes = [
            (high["private"] - low["private"]) / (many - few)
            for (few, low), (many, high) in pairwise(points)
        ]
        bench.row(
            f"memory per session, {transport}, {points[-2][0]:,} to {points[-1][0]:,} sessions",
            slopes[-1],
            "bytes",
            ratio=slopes[-1] / slopes[0],
            ratio_of=f"{slopes[0]:,.0f} bytes",
            target=FLAT_TARGET,
        )


def _key_pushes(bench: Bench) -> None:
    few, many = bench.sizes((500, 5000), (1000, 18_000))
    base = _cost(bench, few)
    _compare(
        bench, f"CPU of a push to one key, {many:,} sessions to {few:,}", base, _cost(bench, many)
    )
    sessions = bench.sizes(1000, 4000)
    one, many_rooms = _cost(bench, sessions, _one_room), _cost(bench, sessions, _own_rooms)
    what = f"CPU of a push to one key, {sessions * ROOMS_EACH:,} rooms to 1"
    _compare(bench, what, one, many_rooms)
    if bench.full:
        what = "CPU of a push to one key, 2 nodes to 1, both nodes together"
        _compare(bench, what, base, _cost(bench, few, count=2))


def _no_rooms(_: int) -> tuple[str, ...]:
    return ()


def _one_room(_: int) -> tuple[str, ...]:
    return ("one",)


def _own_rooms(number: int) -> tuple[str, ...]:
    return tuple(f"room-{number}-{place}" for place in range(ROOMS_EACH))


def _compare(bench: Bench, what: str, base: dict[str, float], grown: dict[str, float]) -> None:
    bench.row(
        what,
        grown["node_us"],
        "µs/push",
        ratio=grown["node_us"] / base["node_us"],
        ratio_of=f"{base['node_us']:.0f} µs",
        target=FLAT_TARGET,
        details={"base": base, "grown": grown},
    )


def _cost(
    bench: Bench,
    sessions: int,
    rooms: Callable[[int], tuple[str, ...]] = _no_rooms,
    *,
    count: int = 1,
) -> dict[str, float]:
    """µs of CPU a push, of nodes, worker and Redis, idle time taken off."""
    bench.step(f"pushes to one key, {sessions:,} sessions beside it, {count} nodes")
    bench.seed_tokens(TARGETS + sessions)
    nodes = [bench.stack.node() for _ in range(count)]
    try:
        with Load() as crowd, Load(1) as targets:
            # At one node, whatever the number of nodes: the question is what the others cost.
            targets.open(_opening(nodes[:1], bench.token_auths(TARGETS, 0)))
            beside = [
                bench.token_auths(1, number, rooms(number))[0]
                for number in range(TARGETS, TARGETS + sessions)
            ]
            crowd.open(_opening(nodes, beside, TARGETS))
            return _pushes(bench, nodes, targets)
    finally:
        bench.stack.stop(*nodes)


def _opening(nodes: list[Node], auths: list[bytes], first: int = 0) -> Opening:
    return Opening([node.target("tcp") for node in nodes], "tcp", auths, first)


def _pushes(bench: Bench, nodes: list[Node], targets: Load) -> dict[str, float]:
    client, worker, stack = bench.client(), bench.worker(), bench.stack

    def readings() -> tuple[float, float, float]:
        return sum(node.cpu() for node in nodes), worker.cpu(), stack.redis_cpu()

    array = [
        {"to": {"key": f"bench-{place % TARGETS}"}, "body": BODIES["tcp"]}
        for place in range(PUSHES)
    ]

    def push() -> None:
        targets.expect(PUSHES // TARGETS)
        client.push(array)
        targets.wait()

    push()  # warm
    time.sleep(1)  # its acknowledgements
    before, began = readings(), time.monotonic()
    time.sleep(IDLE)
    idle = [
        (after - start) / (time.monotonic() - began)
        for after, start in zip(readings(), before, strict=True)
    ]
    before, began = readings(), time.monotonic()
    for _ in range(ARRAYS):
        push()
    time.sleep(0.5)  # the acknowledgements are part of it
    wall = time.monotonic() - began
    spent = [
        (after - start - rate * wall) / (ARRAYS * PUSHES) * 1e6
        for after, start, rate in zip(readings(), before, idle, strict=True)
    ]
    client.close()
    names = ("node_us", "worker_us", "redis_us")
    return dict(zip(names, spent, strict=True)) | {"idle_node_share_of_a_core": idle[0]}
