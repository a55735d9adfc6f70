"""million: as many sessions as asked for, over as many nodes as the file limit makes necessary.

Not in the sets: it takes some minutes and 16 GiB on two cores. It stops before memory runs
out and reports how far it came.
"""

import math
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bench import BODIES, Bench, Target
from benchmarks.load import Load, LoadError
from benchmarks.servers import Node

SESSIONS = 100_000, 1_000_000  # of the short set, and of the full one
NODE_MAX = 19_000  # sessions of one node: a process has 20,000 files
RESERVE = 1_500  # MiB that stay free
ARRIVAL = 300.0  # seconds for one message to reach everyone
# Nobody sends heartbeats while the others connect.
SETTINGS = {"IMGO_HEARTBEAT_TIMEOUT": "7200", "IMGO_DATABASE_THREADS": "1"}


def run(bench: Bench) -> None:
    wished = bench.sizes(*SESSIONS)
    count = math.ceil(wished / NODE_MAX)
    each = math.ceil(wished / count)
    bench.client().close()  # API and worker are up before the rest
    free = available()
    nodes: list[Node] = []
    loads: list[Load] = []
    start = time.monotonic()
    cpu = 0.0
    with ExitStack() as stack:
        try:
            while len(nodes) < count and available() > RESERVE:
                opened = sum(load.sessions for load in loads)
                bench.step(f"{opened:,} sessions, {available():,} MiB free")
                wanted = min(each, wished - opened)
                load = stack.enter_context(Load(1))
                node = bench.stack.node(**SETTINGS)
                auths = bench.auths(wanted, opened, jwts=True)
                nodes.append(node)
                loads.append(load)
                cpu += bench.open(load, node, "tcp", auths, opened)["node_cpu_s"]
            details = {"nodes": len(nodes), "node_cpu_s": cpu}
            details |= {"wall_s": time.monotonic() - start, "used_mib": free - available()}
            _report(bench, nodes, loads, wished, details)
            _tell_everyone(bench, nodes, loads)
        finally:
            for node in nodes:
                node.kill()  # an orderly end of so many takes longer than all the rest
                bench.stack.processes.remove(node)


def _report(
    bench: Bench, nodes: list[Node], loads: list[Load], wished: int, details: dict[str, float]
) -> None:
    opened = sum(load.sessions for load in loads)
    user = sum(node.memory()["private"] for node in nodes)
    bench.row(
        f"sessions open at once, tcp, JWT, {len(nodes)} nodes",
        opened,
        "sessions",
        target=Target(wished, "sessions", at_least=True),
        note="" if opened == wished else "there was no memory for more",
        details=details,
    )
    bench.row("user-space memory of all nodes, Python and Django included", user / 2**30, "GiB")
    bench.row(
        "memory of everything: nodes, Postgres, Redis, generators, both ends of every socket",
        details["used_mib"] / 2**10,
        "GiB",
    )
    bench.row(
        "sessions opened by the clock, starts of nodes included", opened / details["wall_s"], "/s"
    )


def _tell_everyone(bench: Bench, nodes: list[Node], loads: list[Load]) -> None:
    """One message to all: until the last one has it."""
    client = bench.client()
    before = sum(node.cpu() for node in nodes)
    start = time.monotonic()
    client.push({"to": {"all": True}, "body": BODIES["tcp"]})
    for load in loads:
        load.expect()
    got = 0
    for load in loads:
        counted = load.poll(max(0.1, start + ARRIVAL - time.monotonic()))
        got += counted.messages
    seconds = time.monotonic() - start
    if got != sum(load.sessions for load in loads):
        raise LoadError(f"{got} sessions got the message to all within {ARRIVAL:g} s")
    cpu = sum(node.cpu() for node in nodes) - before
    bench.row(f"one message to all of {got:,}: until the last has it", seconds, "s")
    bench.row("CPU of that, all nodes", cpu / got * 1e6, "µs/session")


def available() -> int:
    """MiB that can still be had."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise LoadError("/proc/meminfo does not tell what memory is available")
