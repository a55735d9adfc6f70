"""connect: sessions opened per second, and what a storm of connects does to those already open."""

from benchmarks.bench import Bench, Target
from benchmarks.generator import Opening, Transport
from benchmarks.load import Load
from benchmarks.probe import Connections, Heartbeats
from benchmarks.servers import HookBackend
from benchmarks.stock_baseline import stock

TARGETS: dict[Transport, Target] = {
    "websocket": Target(2000, "/CPU s", at_least=True),
    "tcp": Target(5000, "/CPU s", at_least=True),
}
# Three groups of two threads, which never wait for each other, and the API's two.
CONNECTIONS_TARGET = Target(8, "connections")
HOOK_CONNECTIONS = 16  # the default of the setting
IN_FLIGHT_HOOKED = 64  # sessions that are being opened at once
WARM = 500  # sessions opened before, of a node that has just started


def run(bench: Bench) -> None:
    """The scenario."""
    baseline = stock(bench)["opened_per_cpu_s"]
    for transport in ("websocket", "tcp"):
        for jwts in (False, True):
            _rate(bench, transport, baseline, jwts=jwts)
    _hooked(bench, baseline)
    bench.row("stock Channels, no auth, no look-up", baseline, "sessions/CPU s")
    _storm(bench)


def _rate(bench: Bench, transport: Transport, baseline: float, *, jwts: bool) -> None:
    sessions = bench.sizes(2000, 10_000)
    name = "JWT" if jwts else "stored token"
    bench.step(f"{sessions:,} sessions, {transport}, {name}")
    node = bench.stack.node()
    try:
        with Load() as load:
            auths = bench.auths(WARM + sessions, jwts=jwts)
            bench.open(load, node, transport, auths[:WARM])
            before = load.cpu()
            cost = bench.open(load, node, transport, auths[WARM:], WARM)
            cost["generator_share_of_a_core"] = bench.note_generator(load, before, cost["wall_s"])
    finally:
        bench.stack.stop(node)
    rate = sessions / cost["node_cpu_s"]
    bench.row(
        f"{transport}, {name}, {sessions:,} sessions",
        rate,
        "sessions/CPU s",
        ratio=rate / baseline,
        ratio_of="stock",
        target=None if jwts else TARGETS[transport],
        note=f"{sessions / cost['wall_s']:,.0f}/s by the clock",
        details=cost | {"sessions_per_s": sessions / cost["wall_s"]},
    )


def _hooked(bench: Bench, baseline: float) -> None:
    """WebSocket sessions whose tokens a backend of another process verifies."""
    sessions = bench.sizes(2000, 10_000)
    bench.step(f"{sessions:,} sessions, websocket, authenticate hook")
    backend = HookBackend(bench.stack)
    node = bench.stack.node(**backend.settings)
    try:
        with Load() as load:
            auths = bench.auths(WARM + sessions)
            # No more at once than the hook's pool and queue take: a storm is refused in part.
            bench.open(load, node, "websocket", auths[:WARM], inflight=IN_FLIGHT_HOOKED)
            cost = bench.open(
                load, node, "websocket", auths[WARM:], WARM, inflight=IN_FLIGHT_HOOKED
            )
    finally:
        bench.stack.stop(node)
        connections = backend.connections() - 1  # without that of the look whether it is up
        bench.stack.stop(backend)
    rate = sessions / cost["node_cpu_s"]
    bench.row(
        f"websocket, authenticate hook, {sessions:,} sessions",
        rate,
        "sessions/CPU s",
        ratio=rate / baseline,
        ratio_of="stock",
        note=f"{sessions / cost['wall_s']:,.0f}/s by the clock",
        details=cost,
    )
    bench.row(
        "connections to the backend",
        connections,
        "opened",
        target=Target(HOOK_CONNECTIONS, "connections"),
    )


def _storm(bench: Bench) -> None:
    """Everybody at once, half by WebSocket and half by TCP."""
    sessions = bench.sizes(2000, 10_000)
    half = sessions // 2
    bench.step(f"a storm of {sessions:,}")
    node = bench.stack.node()
    auths = bench.auths(sessions + 1)
    try:
        with (
            Load(1) as websocket,
            Heartbeats(node.target("tcp"), auths[sessions]) as heart,
            Connections(bench.stack, node.application) as connections,
        ):
            opening = Opening([node.target("websocket")], "websocket", auths[:half], 0, half)
            first = websocket.open(opening, may_fail=True)
            opening = Opening([node.target("tcp")], "tcp", auths[half:sessions], half, half)
            second = websocket.open(opening, may_fail=True)
    finally:
        bench.stack.stop(node)
    opened = first.opened + second.opened
    details = {
        "opened": opened,
        "failed": first.failed | second.failed,
        "wall_s": first.seconds + second.seconds,
        "heartbeats": heart.count,
    }
    what = f"in a storm of {half:,} WebSockets at once, then {half:,} TCP"
    bench.row(f"sessions opened {what}", opened, f"of {sessions:,}", details=details)
    bench.row(f"longest wait for a heartbeat's answer {what}", heart.longest * 1000, "ms")
    bench.row(
        f"database connections of the node {what}",
        connections.most,
        "at most",
        target=CONNECTIONS_TARGET,
    )
