"""scopes: what a push to a key with three devices costs, with the scopes `any` and `each`."""

import json
import time

from benchmarks.bench import Bench
from benchmarks.client import Stream
from benchmarks.load import Load
from benchmarks.probe import Samples
from benchmarks.processes import Process
from benchmarks.servers import Api, Node
from benchmarks.sustained import AcknowledgingLoad, growth, wait_until_settled

KEYS = 1000
DEVICES = ("phone", "laptop", "tablet")  # each with one session, which acknowledges
RATE = 500  # pushes a second that are streamed in
PIECE = 50  # lines written together
INFLIGHT = 32  # openings at once: with the scope `each` every new device is a transaction
SETTLE = 180.0  # seconds that the last push may take to be settled


def run(bench: Bench) -> None:
    """Push to the same sessions with each scope."""
    worker = bench.worker()
    for scope in ("any", "each"):
        bench.stack.env["IMGO_ACK_SCOPE"] = json.dumps({"bench-*": scope})
        api, node = bench.stack.api(), bench.stack.node()
        try:
            with AcknowledgingLoad(1) as sessions:
                auths = [
                    json.dumps({**json.loads(auth), "ack": True, "device": device}).encode()
                    for auth in bench.auths(KEYS)
                    for device in DEVICES
                ]
                bench.open(sessions, node, "websocket", auths, inflight=INFLIGHT)
                _measure(bench, sessions, scope, (api, node, worker))
        finally:
            bench.stack.stop(node, api)
            del bench.stack.env["IMGO_ACK_SCOPE"]


def _measure(
    bench: Bench, sessions: Load, scope: str, processes: tuple[Api, Node, Process]
) -> None:
    port, stack = processes[0].port, bench.stack
    _push(bench, sessions, port, KEYS)  # warm
    count = RATE * bench.sizes(8, 60)
    bench.step(f"{count:,} pushes to {KEYS:,} keys with three devices, scope {scope}")
    before = [*(process.cpu() for process in processes), stack.postgres_cpu(), stack.redis_cpu()]
    began = time.monotonic()
    with Samples(stack, "SELECT count(*) FROM offline_pending") as pending:
        streamed = _push(bench, sessions, port, count)
    after = [*(process.cpu() for process in processes), stack.postgres_cpu(), stack.redis_cpu()]
    names = ("api", "node", "worker", "postgres", "redis")
    used = {
        name: (end - start) / count * 1e6
        for name, start, end in zip(names, before, after, strict=True)
    }
    backlog = [(at - began, value) for at, value in pending.samples]
    bench.row(
        f"CPU of all servers for a push to three devices, scope {scope}",
        sum(used.values()),
        "µs/push",
        note=", ".join(f"{name} {us:.0f}" for name, us in used.items())
        + f"; {growth(backlog, streamed, RATE)}",
        details={"pushes": count, "streamed_s": streamed, "cpu_us_per_push": used},
    )


def _push(bench: Bench, sessions: Load, port: int, count: int) -> float:
    """Push at `RATE`, and wait until all is settled; return the seconds of the pushes."""
    stream, began = Stream(port), time.monotonic()
    for start in range(0, count, PIECE):
        time.sleep(max(0.0, began + start / RATE - time.monotonic()))
        stream.write(b"".join(map(_line, range(start, min(count, start + PIECE)))))
    accepted, refused = stream.end()
    if refused or accepted != count:
        raise RuntimeError(f"of {count} pushes {refused} were refused: {stream.first_error!r}")
    streamed = time.monotonic() - began
    sessions.expect_in_all([accepted * len(DEVICES)])
    sessions.wait(SETTLE)
    wait_until_settled(bench)
    return streamed


def _line(number: int) -> bytes:
    return b'{"to":{"key":"bench-%d"},"body":{"n":%d,"text":"^hello"}}\n' % (number % KEYS, number)
