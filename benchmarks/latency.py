"""latency: pushes on a schedule, from the time they were due to their arrival, and loss."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bench import BODIES, ROOM, Bench, Target
from benchmarks.client import Client, Refused
from benchmarks.load import Load
from benchmarks.probe import StampLoad
from benchmarks.servers import Node

LISTENERS = 1000  # sessions that get the pushes, each its own key
RATE = 50.0  # key pushes a second
ROOM_RATE = 20.0  # room messages a second
SENDERS = 4  # connections that the pushes take turns on
GRACE = 5.0  # seconds that the last one may take
WARM_UP = 2.0  # seconds of pushes that are not counted

QUIET_P50, QUIET_P99 = Target(5, "ms"), Target(15, "ms")
BUSY_P99 = Target(60, "ms")


class Schedule:
    """Pushes at a fixed rate, whatever becomes of those before."""

    def __init__(self, bench: Bench, rate: float, seconds: float, make: Any, senders: int) -> None:
        self.rate = rate
        self.count = int(rate * seconds)
        self.refused = 0
        self.latest = 0.0  # seconds that a push was sent behind its time
        self._make = make
        self._clients = [Client(bench.api().port) for _ in range(senders)]
        self._threads = [
            threading.Thread(target=self._send, args=(place,), daemon=True)
            for place in range(senders)
        ]

    def start(self, at: float) -> None:
        """The first one is due `at`, monotonic."""
        self.at = at
        for thread in self._threads:
            thread.start()

    def due(self, number: int) -> float:
        """When a push is due, monotonic."""
        return self.at + number / self.rate

    def _send(self, place: int) -> None:
        client = self._clients[place]
        for number in range(place, self.count, len(self._clients)):
            time.sleep(max(0.0, self.due(number) - time.monotonic()))
            self.latest = max(self.latest, time.monotonic() - self.due(number))
            try:
                client.push(self._make(number))
            except (Refused, OSError):
                self.refused += 1

    def join(self) -> None:
        """Wait until all were sent."""
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()


@dataclass
class Case:
    """What is measured, and what it has to reach."""

    what: str
    p99: Target
    p50: Target | None = None
    traffic: dict[str, Any] = field(default_factory=dict)


def run(bench: Bench) -> None:
    bench.worker()
    busy = bench.sizes(2000, 10_000)
    node = bench.stack.node()
    try:
        with StampLoad(1) as listeners, Load() as crowd:
            auths = bench.auths(LISTENERS)
            bench.open(listeners, node, "websocket", auths)
            quiet = Case(f"{LISTENERS:,} sessions, quiet", QUIET_P99, QUIET_P50)
            _measure(bench, listeners, node, quiet)
            bench.step(f"opening {busy:,} sessions")
            auths = bench.auths(busy, LISTENERS, [ROOM])
            bench.open(crowd, node, "websocket", auths, LISTENERS)
            before, began = crowd.cpu(), time.monotonic()
            with _room_traffic(bench, crowd) as traffic:
                what = f"while {busy:,} sessions take {ROOM_RATE:g} room messages/s"
                _measure(bench, listeners, node, Case(what, BUSY_P99, traffic=traffic))
            bench.note_generator(crowd, before, time.monotonic() - began)
    finally:
        bench.stack.stop(node)


def _seconds(bench: Bench) -> float:
    return float(bench.sizes(12, 60)) + WARM_UP


@contextlib.contextmanager
def _room_traffic(bench: Bench, crowd: Load) -> Iterator[dict[str, Any]]:
    """Room messages on a schedule of their own; what became of them is there afterwards."""
    push = {"to": {"room": ROOM}, "body": BODIES["websocket"]}
    schedule = Schedule(bench, ROOM_RATE, _seconds(bench) + 1, lambda _: push, 2)
    schedule.start(time.monotonic())
    found: dict[str, Any] = {}
    yield found
    schedule.join()
    crowd.expect(schedule.count - schedule.refused)
    counted = crowd.poll(GRACE)
    found |= {
        "room_messages": schedule.count,
        "room_refused": schedule.refused,
        "room_deliveries_lost": sum(crowd.expected) - counted.messages,
        "room_connections_lost": counted.lost,
        "room_latest_send_s": schedule.latest,
    }


def _push(number: int) -> dict[str, Any]:
    return {"to": {"key": f"bench-{number % LISTENERS}"}, "body": f"^{number:07d}"}


def _measure(bench: Bench, listeners: StampLoad, node: Node, case: Case) -> None:
    seconds = _seconds(bench)
    bench.step(f"{case.what}: {seconds:g} s of {RATE:g} pushes a second")
    schedule = Schedule(bench, RATE, seconds, _push, SENDERS)
    cpu, began = node.cpu(), time.monotonic()
    schedule.start(began + 0.2)
    schedule.join()
    share = (node.cpu() - cpu) / (time.monotonic() - began)
    listeners.expect_in_all([schedule.count - schedule.refused])
    listeners.poll(GRACE)
    listeners.expected = [listeners.poll().messages]
    arrived: dict[int, float] = {}
    for number, at in listeners.stamps():
        arrived.setdefault(number, at)
    counted = range(int(WARM_UP * RATE), schedule.count)
    times = sorted((arrived[n] - schedule.due(n)) * 1000 for n in counted if n in arrived)
    details = {
        "pushes": len(counted),
        "refused": schedule.refused,
        "lost": len(counted) - len(times),
        "latest_send_ms": schedule.latest * 1000,
        "node_share_of_a_core": share,
        "traffic": case.traffic,
    }
    _report(bench, case, times, details)


def _report(bench: Bench, case: Case, times: list[float], details: dict[str, Any]) -> None:
    if times:
        targets = {"p50": (0.5, case.p50), "p99": (0.99, case.p99), "p99.9": (0.999, None)}
        for name, (share, target) in targets.items():
            value = times[min(len(times) - 1, int(share * len(times)))]
            bench.row(f"{name}, {case.what}", value, "ms", target=target, details=details)
    what = f"pushes lost, {case.what}"
    bench.row(what, details["lost"], f"of {details['pushes']:,}", details=details)
