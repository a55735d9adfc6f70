"""schedule: a thousand scheduled pushes due each second, and what a million that wait cost."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.bench import Bench, Target
from benchmarks.client import Stream
from benchmarks.probe import StampLoad
from benchmarks.servers import Node

LISTENERS = 1000  # sessions that get the pushes, each its own key
RATE = 1000  # pushes due in a second
LEAD = 20.0  # seconds until the first one is due, in which all are accepted
GRACE = 30.0  # seconds that the last one may take
WAITING = 1_000_000  # pushes that are due in ten days
PIECE = 500  # lines written together

P99 = Target(1000, "ms")
FEW_BLOCKS = Target(10, "blocks")

FILL = f"""
    INSERT INTO offline_scheduledpush (id, due_at, created_at, audience, room, keys, stored, op,
                                       body, is_json, by, ensure, speed, ttl, origin, exclude)
    SELECT -n, now() + interval '10 days' + n * interval '1 ms', now(), 'keys', '', '["a"]', true,
           5, '\\x31', true, '', false, 0, 60, '', '' FROM generate_series(1, {WAITING}) n
"""
IS_DUE = (
    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT due_at <= statement_timestamp() "
    "FROM offline_scheduledpush ORDER BY due_at, id LIMIT 1"
)


def run(bench: Bench) -> None:
    bench.worker()
    node = bench.stack.node()
    try:
        with StampLoad(1) as listeners:
            bench.open(listeners, node, "websocket", bench.auths(LISTENERS))
            _measure(bench, listeners, node, "none other waits")
            bench.step(f"{WAITING:,} more pushes")
            with bench.stack.database() as connection:
                connection.execute(FILL)
                connection.commit()
                connection.autocommit = True
                connection.execute("VACUUM ANALYZE offline_scheduledpush")
            _measure(bench, listeners, node, f"{WAITING:,} others wait")
            with bench.stack.database() as connection:
                connection.autocommit = True
                connection.execute("VACUUM offline_scheduledpush")
            _explain(bench)
    finally:
        bench.stack.stop(node)


def _measure(bench: Bench, listeners: StampLoad, node: Node, case: str) -> None:
    """Report how late pushes arrive that are due at a fixed rate."""
    seconds = bench.sizes(10, 60)
    count = RATE * seconds
    bench.step(f"{count:,} pushes, due over {seconds} s; {case}")
    start, at = time.monotonic() + LEAD, datetime.now(tz=UTC) + timedelta(seconds=LEAD)
    stream = Stream(bench.api().port)
    lines = (_line(number, at) for number in range(count))
    for _ in range(0, count, PIECE):
        stream.write(b"".join(next(lines) for _ in range(PIECE)))
    accepted, refused = stream.end()
    before = bench.server_cpu(node)
    early = LEAD - (time.monotonic() - (start - LEAD))
    listeners.stamps()
    listeners.expect_in_all([accepted])
    time.sleep(max(0.0, start + seconds - time.monotonic()))
    listeners.poll(GRACE)
    listeners.expected = [listeners.poll().messages]
    arrived: dict[int, float] = {}
    for number, when in listeners.stamps():
        arrived.setdefault(number, when)
    late = sorted((when - start - number / RATE) * 1000 for number, when in arrived.items())
    details: dict[str, Any] = {
        "accepted": accepted,
        "refused": refused,
        "lost": accepted - len(late),
        "accepted_before_due_s": early,
        "earliest_ms": late[0] if late else None,
        "cpu_us_per_push": {
            name: (used - before[name]) / max(1, len(late)) * 1e6
            for name, used in bench.server_cpu(node).items()
        },
    }
    spent = sum(details["cpu_us_per_push"].values())
    bench.row(f"CPU of all servers, accepted before; {case}", spent, "µs/push", details=details)
    for name, share, target in (("p50", 0.5, None), ("p99", 0.99, P99), ("latest", 1.0, None)):
        value = late[min(len(late) - 1, int(share * len(late)))]
        what = f"{name} behind its time, {RATE:,} due a second; {case}"
        bench.row(what, value, "ms", target=target, details=details)
    bench.row(f"lost; {case}", details["lost"], f"of {accepted:,}", details=details)


def _line(number: int, at: datetime) -> bytes:
    push = {
        "to": {"key": f"bench-{number % LISTENERS}"},
        "body": f"^{number:07d}",
        "send_at": (at + timedelta(seconds=number / RATE)).isoformat(),
    }
    return json.dumps(push).encode() + b"\n"


def _explain(bench: Bench) -> None:
    """Report what the search for due pushes reads while a million wait."""
    with bench.stack.database() as connection:
        row = connection.execute(IS_DUE).fetchone()
    assert row is not None
    (plan,) = row[0]
    read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    what = f"read by a search for due pushes, {WAITING:,} wait"
    note = f"{plan['Execution Time']:.2f} ms, {_scans(plan['Plan'])}"
    bench.row(what, read, "blocks", target=FEW_BLOCKS, note=note, details=plan)


def _scans(plan: dict[str, object]) -> str:
    inner = plan.get("Plans", [])
    assert isinstance(inner, list)
    name = plan.get("Index Name") or plan["Node Type"]
    return " over ".join([str(name), *map(_scans, inner)])
