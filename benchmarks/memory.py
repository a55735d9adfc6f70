"""memory: user space per idle session, from the slope between two numbers of sessions."""

import time
from typing import Any

from benchmarks.bench import ROOM, Bench, Target
from benchmarks.generator import Transport
from benchmarks.load import Load
from benchmarks.stock_baseline import stock

TARGET = Target(2560, "bytes")
INFLIGHT = 64  # what many that open at once need for a moment is not what a session weighs
SETTLE = 2.0  # seconds after opening: the last tasks end, the node's care has run


def run(bench: Bench) -> None:
    baseline = stock(bench)["bytes_per_session"]
    for transport in ("websocket", "tcp"):
        points = measure(bench, transport)
        (few, low), (many, high) = points[0], points[-1]
        slopes = {name: (high[name] - low[name]) / (many - few) for name in low}
        bench.row(
            f"per idle session, {transport}, {few:,} to {many:,} sessions",
            slopes["private"],
            "bytes",
            ratio=slopes["private"] / baseline,
            ratio_of="stock",
            target=TARGET,
            details={"bytes_per_session": slopes, "points": points, "stock": baseline},
        )
    bench.row("stock Channels, per idle session", baseline, "bytes")


def measure(bench: Bench, transport: Transport) -> list[tuple[int, dict[str, int]]]:
    """(sessions, bytes) at each size: of the node, and what Redis keeps."""
    key = f"memory of {transport}"
    if key in bench.known:
        known: list[tuple[int, dict[str, int]]] = bench.known[key]
        return known
    node = bench.stack.node()
    points: list[tuple[int, dict[str, int]]] = []
    try:
        with Load() as load:
            for sessions in bench.sizes((1000, 4000, 7000), (2000, 10_000, 19_000)):
                bench.step(f"{sessions:,} sessions, {transport}")
                first = load.sessions
                auths = bench.auths(sessions - first, first, [ROOM])
                bench.open(load, node, transport, auths, first, inflight=INFLIGHT)
                time.sleep(SETTLE)
                info: Any = bench.stack.redis.info("memory")
                points.append((sessions, node.memory() | {"redis": info["used_memory"]}))
    finally:
        bench.stack.stop(node)
    bench.known[key] = points
    return points
