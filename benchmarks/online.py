"""online: what it costs a node that sessions' keys coming and going are events."""

import statistics
import time

from benchmarks.bench import Bench, Target
from benchmarks.load import Load

TARGET = Target(1.1, "× without", of_ratio=True)
EVENTS = {"IMGO_EVENT_KEYS": "*"}
FIRST = 1_500_000  # number of the first key: no other scenario has them
WARM = 300  # sessions opened before, of a node that has just started
SETTLE = 3.0  # seconds after opening: the last batch of keys is written


def run(bench: Bench) -> None:
    """Open sessions at a node with and at one without events, by turns."""
    pairs, sessions = bench.sizes((5, 1_000), (8, 3_000))
    spent: list[tuple[float, float]] = []
    for pair in range(pairs):
        bench.step(f"{sessions:,} sessions with events and without: {pair} of {pairs}")
        # Each is first in every other pair: what comes second finds warmer caches.
        turns = [EVENTS, {}] if pair % 2 else [{}, EVENTS]
        cpu = {bool(turn): _opening(bench, sessions, turn) for turn in turns}
        spent.append((cpu[True], cpu[False]))
    ratios = [with_events / without for with_events, without in spent]
    bench.row(
        f"opening {sessions:,} sessions whose keys are events",
        sum(with_events for with_events, _ in spent) / (pairs * sessions) * 1e6,
        "µs/session",
        ratio=statistics.median(ratios),
        ratio_of="without",
        target=TARGET,
        note=f"pairs from {min(ratios):.2f} to {max(ratios):.2f}",
        details={"cpu_s": spent, "ratios": ratios},
    )


def _opening(bench: Bench, sessions: int, settings: dict[str, str]) -> float:
    """Open sessions at a node of its own; the CPU seconds of the node, with the writes after."""
    node = bench.stack.node(**settings)
    try:
        with Load() as load:
            auths = bench.auths(WARM + sessions, FIRST, jwts=True)
            bench.open(load, node, "websocket", auths[:WARM], FIRST)
            time.sleep(SETTLE)
            before = node.cpu()
            bench.open(load, node, "websocket", auths[WARM:], FIRST + WARM)
            time.sleep(SETTLE)
            return node.cpu() - before
    finally:
        bench.stack.stop(node)
