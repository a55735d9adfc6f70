"""The metrics: what they count, and that the documents name those that there are."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from imgo_site.process_parts import process
from push.bus.layers import InProcessChannelLayer
from push.metrics import definitions as metrics
from push.metrics import exposition
from push.node.coalescer import write_to_all
from push.node.hub import Hub
from push.session.outgoing import Kind, OutgoingMessage
from push.session.session_metrics import SessionFigures
from push.status import metrics_page
from push.wire import CloseCode
from tests import PATIENCE, eventually, fork_server
from tests.push.sessions import KeptKeeper, make_session, message

ROOT = Path(__file__).resolve().parent.parent.parent.parent
SUFFIXES = ("_bucket", "_sum", "_count")


def line_of(name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics_page.text().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


# Names and documents


def test_names_say_their_unit_and_help_is_there():
    found = metrics.families()
    assert len(found) > 20
    for name, (kind, labels, text, _) in found.items():
        assert re.fullmatch(r"imgo(_[a-z]+)+", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert "milliseconds" not in name
        assert name.endswith("_seconds") or kind != "histogram", name
        assert text.endswith("."), name
        assert all(re.fullmatch("[a-z]+", label) for label in labels), name


def test_what_is_scraped_is_what_the_reference_names():
    shown = set(re.findall(r"^# TYPE (imgo_\w+)", metrics_page.text().decode(), re.MULTILINE))
    assert shown == set(metrics.families())


def test_the_reference_is_the_one_the_code_gives():
    assert metrics.markdown_table() in (ROOT / "docs" / "metrics.md").read_text()


def known_series() -> dict[str, list[str]]:
    """Each name that a query may have, and its labels."""
    found = {}
    for name, (kind, labels, _, _) in metrics.families().items():
        if kind == "histogram":
            found |= {name + suffix: [*labels, "le"] for suffix in SUFFIXES}
        else:
            found[name] = labels
    return found


def queries_of(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["expr"]] if isinstance(node.get("expr"), str) else []
        return own + [query for value in node.values() for query in queries_of(value)]
    if isinstance(node, list):
        return [query for value in node for query in queries_of(value)]
    return []


def check_queries(queries: list[str]) -> set[str]:
    """The names in PromQL; fails for one that there is not, or a label that it does not have."""
    known, named = known_series(), set()
    for query in queries:
        for name, matchers in re.findall(r"(imgo_\w+)(?:\{([^}]*)\})?", query):
            assert name in known, f"{name} in {query}"
            named.add(name)
            used = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
            assert set(used) <= {*known[name], "job", "instance"}, query
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            labels = {label.strip() for label in grouped.split(",")}
            allowed = {label for name in named for label in known[name]}
            assert labels <= allowed | {"job", "instance"}, query
    return named


def test_the_dashboard_names_only_what_there_is():
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    queries = queries_of(dashboard["panels"])
    named = check_queries(queries)
    assert len(queries) > 15
    bases = {name.removesuffix("_bucket") for name in named}
    missing = set(metrics.families()) - bases - {"imgo_closes_total"}
    assert missing == set(), "metrics that the dashboard does not show"
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_alerts_name_only_what_there_is():
    text = (ROOT / "docs" / "monitoring.md").read_text()
    queries = re.findall(r"^\s+expr: (.+)$", text, re.MULTILINE)
    assert len(queries) > 8
    assert len(check_queries(queries)) > 8


# The node's


@pytest.fixture
async def hub():
    found = Hub(InProcessChannelLayer(), "n1")
    await found.start()
    process.get(SessionFigures).begin(found)
    yield found
    await found.stop()


async def test_sessions_are_counted_when_they_are_asked_for(hub):
    opened = line_of('imgo_sessions_opened_total{source="token",transport="tcp"}')
    sessions = [
        make_session("t", kind=Kind.TCP),
        make_session("b", kind=Kind.BINARY),
        make_session("x", kind=Kind.TEXT),
    ]
    for session in sessions:
        await hub.add(session, [])
    sessions[0].link.waiting, sessions[2].link.waiting = 30, 12
    assert line_of('imgo_sessions{transport="tcp"}') == 1
    assert line_of('imgo_sessions{transport="websocket"}') == 2
    assert line_of('imgo_waiting_bytes{transport="tcp"}') == 30
    assert line_of('imgo_waiting_bytes{transport="websocket"}') == 12
    assert line_of('imgo_sessions_opened_total{source="token",transport="tcp"}') - opened == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [(None, "client"), (CloseCode.KICKED, "kicked"), (CloseCode.SLOW_READER, "slow_reader")],
)
async def test_a_session_that_ends_is_counted_once_with_its_reason(hub, code, reason):
    name = f'imgo_sessions_closed_total{{reason="{reason}",transport="tcp"}}'
    before = line_of(name)
    session = make_session()
    await hub.add(session, [])
    if code is not None:
        session.disconnect(code)
        session.disconnect(CloseCode.GOING_AWAY)  # says nothing new
    hub.remove(session, [])
    hub.remove(session, [])
    assert line_of(name) - before == 1


class Counted:
    """Sessions of one node, and the frames that they were written, by transport."""

    def __init__(self) -> None:
        self.keeper = KeptKeeper([])

    def held(self, name: str, kind: Kind = Kind.TCP):
        return make_session(name, kind=kind, keeper=self.keeper)

    def quick(self, name: str, kind: Kind, *, acks: bool = False):
        """A session whose socket takes everything."""
        session = make_session(name, kind=kind, acks=acks, keeper=self.keeper)
        session.send = len
        return session

    def write(self, sessions, one: OutgoingMessage) -> None:
        write_to_all(sessions, one, self.keeper.written)

    @property
    def frames(self) -> dict[str, int]:
        found = self.keeper.written.frames
        return {
            "tcp": sum(found[0:30:3]),
            "websocket": sum(found[1:30:3]) + sum(found[2:30:3]),
            "sse": sum(found[30:]),
        }


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize("times", [1, 2])
def test_frames_are_counted_by_transport(counted, times):
    sessions = [
        counted.quick("a", Kind.TCP),
        counted.quick("b", Kind.TCP, acks=True),
        counted.quick("c", Kind.TEXT),
        counted.quick("d", Kind.TEXT),
        counted.quick("e", Kind.BINARY),
        counted.held("f", Kind.TEXT),  # through its link
    ]
    one = message(1, "")
    for _ in range(times):  # the second time, everything is encoded already
        counted.write(sessions, one)
    assert counted.frames == {"tcp": 2 * times, "websocket": 4 * times, "sse": 0}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("count", [1, 2, 100])
def test_frames_to_sessions_of_one_kind_are_counted(counted, kind, count):
    counted.write([counted.quick(str(n), kind) for n in range(count)], message(1, ""))
    assert sum(counted.frames.values()) == count
    assert counted.frames[kind.transport] == count


def test_a_frame_that_is_held_back_counts_when_it_is_written(counted):
    held = counted.held("a")
    held.hold(10**6)
    counted.write([held, counted.quick("b", Kind.TCP)], message(1, ""))
    assert counted.frames["tcp"] == 1
    held.release()
    assert counted.frames["tcp"] == 2


async def test_a_delivery_counts_once_for_each_session(hub, counted):
    counted.keeper.written = hub.written
    for name in ("a", "b", "c"):
        await hub.add(counted.quick(name, Kind.TCP), ["r.1"])
    hub.deliver("r.1", OutgoingMessage(0, 5, b"{}", True))  # a picture for the dashboards
    hub.deliver("r.1", OutgoingMessage(1, 5, b"1", True, at=1000.0))
    hub.deliver("r.1", OutgoingMessage(2, 5, b"2", True, at=1000.0))
    await eventually(lambda: hub.written.deliveries == 6)
    back = counted.held("d")
    back.hold(10**6)
    back.replay(message(3))
    back.replay(message(3))
    assert hub.written.deliveries == 7


async def test_the_time_to_the_last_write_is_noted_for_each_message(hub, counted, monkeypatch):
    monkeypatch.setattr("push.node.coalescer.time.time", lambda: 1000.0)
    await hub.add(counted.quick("a", Kind.TCP), [])
    count, total = (f"imgo_delivery_latency_seconds_{what}" for what in ("count", "sum"))
    before = line_of(count), line_of(total)
    times = (999.5, 1001.0, 0.0)  # half a second; a clock that differs; of no interest
    for number, at in enumerate(times, 1):
        one = message(number, "")
        one.at = at
        hub.deliver("all", one)
        await asyncio.sleep(0)
    await eventually(lambda: not hub.coalescers)
    assert line_of(count) - before[0] == 2
    assert line_of(total) - before[1] == pytest.approx(0.5)


# Processes that share a directory


def test_processes_that_share_a_directory_are_summed_up(tmp_path, monkeypatch):
    code = (
        "import django; django.setup()\n"
        "from push.metrics import definitions as metrics\n"
        "metrics.PUSHES.labels('all').inc(3)\n"
        "metrics.POOL_MAX.set(4)\n"
        "metrics.OUTBOX.set(7)\n"
        "metrics.FANOUT_SECONDS.observe(0.3)\n"
    )
    for _ in range(2):
        environment = {
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "imgo_site.settings",
            "IMGO_DATA_DIR": str(tmp_path / "data"),
        }
        done = fork_server.run(["-c", code], ROOT, environment, timeout=PATIENCE)
        assert (done.returncode, done.stderr) == (0, "")
    metrics.OUTBOX.set(1)
    monkeypatch.setattr(exposition, "_directory", str(tmp_path))
    assert line_of('imgo_pushes_total{target="all"}') == 6
    assert line_of("imgo_database_pool_connections_max") == 8
    assert line_of('imgo_fanout_latency_seconds_bucket{le="0.5"}') == 2
    assert line_of("imgo_outbox") == 1  # what whoever answers has found out
    names = re.findall(r"^# TYPE (\w+)", metrics_page.text().decode(), re.MULTILINE)
    assert len(set(names)) == len(names)
