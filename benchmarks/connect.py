"""connect: sessions opened per second, and what a storm of connects does to those already open."""

from benchmarks.bench import Bench, Target
from benchmarks.generator import Opening, Transport
from benchmarks.load import Load
from benchmarks.probe import Connections, Heartbeats
from benchmarks.servers import HookBackend
from benchmarks.stock_baseline import stock

TARGETS: dict[Transport, Target] = {
    "websocket": Target(3500, "/CPU s", at_least=True),
    "tcp": Target(7000, "/CPU s", at_least=True),
}
# Three groups of two threads, which never wait for each other, and the API's two.
CONNECTIONS_TARGET = Target(8, "connections")
HOOK_CONNECTIONS = 16  # the default of the setting
# Not more than the hook's pool and queue take: in a storm, a part is refused.
IN_FLIGHT_HOOKED = 64
WARM = 500  # sessions opened before, of a node that has just started


def run(bench: Bench) -> None:
    """Open sessions by each transport and each kind of login, then in a storm."""
    baseline = stock(bench)["opened_per_cpu_s"]
    for transport in ("websocket", "tcp"):
        target = TARGETS[transport]
        _rate(bench, transport, baseline, "stored token", target=target)
        _rate(bench, transport, baseline, "JWT", jwts=True)
    _hooked(bench, baseline)
    bench.row("stock Channels, no auth, no look-up", baseline, "sessions/CPU s")
    _storm(bench)


def _rate(
    bench: Bench,
    transport: Transport,
    baseline: float,
    name: str,
    *,
    jwts: bool = False,
    settings: dict[str, str] | None = None,
    inflight: int = 256,
    target: Target | None = None,
) -> None:
    """Open sessions at a node of its own. `inflight`: how many are being opened at once."""
    sessions = bench.sizes(2000, 10_000)
    bench.step(f"{sessions:,} sessions, {transport}, {name}")
    node = bench.stack.node(**settings or {})
    try:
        with Load() as load:
            auths = bench.auths(WARM + sessions, jwts=jwts)
            bench.open(load, node, transport, auths[:WARM], inflight=inflight)
            before = load.cpu()
            cost = bench.open(load, node, transport, auths[WARM:], WARM, inflight=inflight)
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
        target=target,
        note=f"{sessions / cost['wall_s']:,.0f}/s by the clock",
        details=cost | {"sessions_per_s": sessions / cost["wall_s"]},
    )


def _hooked(bench: Bench, baseline: float) -> None:
    """Open WebSocket sessions whose tokens a backend of another process verifies."""
    backend = HookBackend(bench.stack)
    try:
        _rate(
            bench,
            "websocket",
            baseline,
            "authenticate hook",
            settings=backend.settings,
            inflight=IN_FLIGHT_HOOKED,
        )
        connections = backend.connections() - 1  # without that of the look whether it is up
    finally:
        bench.stack.stop(backend)
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
