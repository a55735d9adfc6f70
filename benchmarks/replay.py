"""replay: messages that waited in Postgres, sent to sessions that come back."""

import time

from benchmarks.bench import Bench, Target
from benchmarks.load import Load
from benchmarks.servers import Node

TARGET = Target(50_000, "/CPU s", at_least=True)
OFFLINE_MAX = 1000  # messages that a key keeps: the default setting
BODY = '"^xxxxxxx"'  # JSON
FIRST = 100_000  # number of the first key: no other scenario has them
WARM = 200  # sessions opened before
ACKNOWLEDGED_TIMEOUT = 60.0  # seconds


def run(bench: Bench) -> None:
    full_keys, many = bench.sizes((20, 2000), (100, 9000))  # twice as many sessions
    _case(bench, FIRST, full_keys, OFFLINE_MAX)
    _case(bench, FIRST + full_keys, many, 10)


def _case(bench: Bench, first: int, keys: int, messages: int) -> None:
    """Sessions that cannot acknowledge: the node does, when the kernel has the bytes."""
    bench.step(f"{keys:,} keys with {messages:,} pending messages: filling")
    stack, total = bench.stack, keys * messages
    stack.seed("tokens", first, keys)
    stack.seed("pending", first, keys, messages, BODY)
    node = stack.node()
    try:
        with Load() as load:
            bench.open(load, node, "websocket", bench.auths(WARM))
            # So much of what follows is not replay.
            plain = bench.open(load, node, "websocket", bench.auths(keys, WARM), WARM)
            bench.step(f"{keys:,} keys with {messages:,} pending messages: replaying")
            auths = bench.token_auths(keys, first)
            before, began = _cpu(bench, node), time.monotonic()
            bench.open(load, node, "websocket", auths, first)
            load.expect_in_all(load.of_last_opening(messages))
            load.wait()
            wall = time.monotonic() - began
            sent = _cpu(bench, node)
            _wait_until_acknowledged(bench)
            after = _cpu(bench, node)
    finally:
        stack.stop(node)
    spent = [end - start for end, start in zip(after, before, strict=True)]
    details = {
        "messages": total,
        "wall_s": wall,
        "node_cpu_s": spent[0],
        "node_cpu_s_until_sent": sent[0] - before[0],
        "node_cpu_s_of_opening_as_many": plain["node_cpu_s"],
        "postgres_cpu_s": spent[1],
    }
    _report(bench, f"{keys:,} keys with {messages:,} pending each", details)


def _report(bench: Bench, what: str, details: dict[str, float]) -> None:
    total, node = details["messages"], details["node_cpu_s"]
    postgres_us = details["postgres_cpu_s"] / total * 1e6
    bench.row(
        f"{what}, acknowledging included",
        total / (node - details["node_cpu_s_of_opening_as_many"]),
        "messages/CPU s",
        target=TARGET,
        note=f"with the opening of the sessions {total / node:,.0f}; "
        f"{total / details['wall_s']:,.0f}/s by the clock; Postgres {postgres_us:,.0f} µs each",
        details=details,
    )


def _cpu(bench: Bench, node: Node) -> tuple[float, float]:
    return node.cpu(), bench.stack.postgres_cpu()


def _wait_until_acknowledged(bench: Bench) -> None:
    query = "SELECT EXISTS (SELECT FROM offline_pending WHERE key LIKE 'bench-%')"
    deadline = time.monotonic() + ACKNOWLEDGED_TIMEOUT
    with bench.stack.database() as database:
        while database.execute(query).fetchone() != (False,):
            if time.monotonic() > deadline:
                raise RuntimeError("what was replayed is still pending")
            time.sleep(0.1)
