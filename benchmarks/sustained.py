"""sustained: stored key pushes end to end: streamed in, delivered to online keys, settled."""

import json
import re
import struct
import time
from itertools import pairwise
from typing import Any

from benchmarks.bench import Bench, Target
from benchmarks.client import Stream
from benchmarks.generator import MARK
from benchmarks.load import Load
from benchmarks.probe import Reader, Samples
from benchmarks.servers import Node

KEYS = 2000  # each with one session
RATE = 8000  # pushes a second that are streamed in
PIECE = 400  # lines written together
SETTLE = 180.0  # seconds that the last push may take to be settled
FLAT = 0.5  # of a second's pushes: more waiting in the last third than in the middle one is growth

CPU = {False: Target(140, "µs/push"), True: Target(185, "µs/push")}
THROUGHPUT = Target(RATE, "/s", at_least=True)
_ID = re.compile(rb'"id":"(\d+)"')


class Acknowledger(Reader):
    """A generator that counts messages, and acknowledges those of one read in one frame."""

    def read(self, fd: int, data: bytes) -> None:
        """Count the messages, and send op 22 with their ids."""
        self.messages += data.count(MARK)
        if ids := _ID.findall(data):
            self.socks[fd].send(_acknowledgement(ids))


class AcknowledgingLoad(Load):
    """A load whose sessions acknowledge."""

    kind = Acknowledger


def _acknowledgement(ids: list[bytes]) -> bytes:
    payload = b'{"ver":1,"op":22,"seq":0,"body":["%b"]}' % b'","'.join(ids)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
    return b"\x81" + length + b"\0\0\0\0" + payload


def run(bench: Bench) -> None:
    """Push to sessions that do not acknowledge, then to sessions that do."""
    bench.worker()
    for acknowledges in (False, True):
        node = bench.stack.node()
        try:
            with (AcknowledgingLoad if acknowledges else Load)(1) as listeners:
                auths = [_auth(auth, acknowledges) for auth in bench.auths(KEYS)]
                bench.open(listeners, node, "websocket", auths)
                _measure(bench, listeners, node, acknowledges)
        finally:
            bench.stack.stop(node)


def _auth(auth: bytes, acknowledges: bool) -> bytes:
    return json.dumps({**json.loads(auth), "ack": acknowledges}).encode()


def _measure(bench: Bench, listeners: Load, node: Node, acknowledges: bool) -> None:
    stack, seconds = bench.stack, bench.sizes(8, 300)
    case = "acknowledged" if acknowledges else "without acknowledgements"
    _push(bench, KEYS)  # warm
    listeners.expect_in_all([KEYS])
    listeners.wait()
    wait_until_settled(bench)
    count = RATE * seconds
    bench.step(f"{count:,} pushes to {KEYS:,} keys, {case}")
    log_before = _written(bench)
    before, began = bench.server_cpu(node), time.monotonic()
    busy = listeners.cpu()
    with Samples(stack, "SELECT count(*) FROM offline_pending") as pending:
        accepted = _push(bench, count, began)
        streamed = time.monotonic() - began
        listeners.expect_in_all([accepted])
        listeners.wait(SETTLE)
        delivered = time.monotonic() - began
        wait_until_settled(bench)
    settled = time.monotonic() - began
    used = {name: cpu - before[name] for name, cpu in bench.server_cpu(node).items()}
    bench.note_generator(listeners, busy, delivered)
    backlog = [(round(at - began, 2), value) for at, value in pending.samples]
    details: dict[str, Any] = {
        "accepted": accepted,
        "delivered_s": delivered,
        "settled_s": settled,
        "log_bytes_per_push": (_written(bench) - log_before) / accepted,
        "cpu_us_per_push": {name: cpu / accepted * 1e6 for name, cpu in used.items()},
        "backlog": backlog[:: max(1, len(backlog) // 100)],
    }
    parts = ", ".join(f"{name} {us:.0f}" for name, us in details["cpu_us_per_push"].items())
    parts += f"; Postgres wrote {details['log_bytes_per_push']:,.0f} bytes of log a push"
    total = sum(used.values()) / accepted * 1e6
    what = f"CPU of all servers, {case}"
    bench.row(what, total, "µs/push", target=CPU[acknowledges], note=parts, details=details)
    what = f"delivered, {case}"
    rate = accepted / delivered
    bench.row(what, rate, "/s", target=THROUGHPUT, note=growth(backlog, streamed, RATE))


def _push(bench: Bench, count: int, began: float | None = None) -> int:
    """Stream pushes in, at `RATE` from `began` on; return the number of accepted ones."""
    stream = Stream(bench.api().port)
    for start in range(0, count, PIECE):
        if began is not None:
            time.sleep(max(0.0, began + start / RATE - time.monotonic()))
        stream.write(b"".join(map(_line, range(start, min(count, start + PIECE)))))
    accepted, refused = stream.end()
    if refused or accepted != count:
        raise RuntimeError(f"of {count} pushes {refused} were refused: {stream.first_error!r}")
    return accepted


def _line(number: int) -> bytes:
    return b'{"to":{"key":"bench-%d"},"body":{"n":%d,"text":"^hello"}}\n' % (number % KEYS, number)


def wait_until_settled(bench: Bench) -> None:
    """Wait until nothing is pending. Raises `RuntimeError` after `SETTLE` seconds."""
    with bench.stack.database() as connection:
        deadline = time.monotonic() + SETTLE
        while connection.execute("SELECT EXISTS (SELECT FROM offline_pending)").fetchone() != (
            False,
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(f"messages were still pending after {SETTLE:g} s")
            time.sleep(0.02)


def _written(bench: Bench) -> int:
    """Return the bytes of its log that Postgres has written so far."""
    with bench.stack.database() as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def growth(backlog: list[tuple[float, int]], seconds: float, rate: int) -> str:
    """Return whether more messages were pending in the last third than in the middle one.

    `backlog`: (seconds from the begin, messages). `seconds`: how long pushes were streamed in.
    `rate`: pushes a second.
    """
    thirds = [
        [value for at, value in backlog if begin <= at * 3 / seconds < end]
        for begin, end in pairwise((1, 2, 3))
    ]
    if not all(thirds):
        return "too few samples of the backlog"
    middle, last = (sum(third) / len(third) for third in thirds)
    word = "flat" if last - middle <= FLAT * rate else "GROWING"
    return f"pending: {middle:,.0f} in the middle third, {last:,.0f} in the last: {word}"
