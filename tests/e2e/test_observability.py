"""One installation with everything turned on: metrics of several processes, logs, traces."""

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.mmap_dict import MmapedDict

from tests import NO_TLS, wait_until

from .harness import HOST, Cluster, Worker, Workers, free_ports
from .world import World, new_key

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Takes spans by OTLP over HTTP, as a collector of OpenTelemetry does."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        taken = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for group in request.resource_spans:
                    process = {a.key: a.value.int_value for a in group.resource.attributes}
                    for scope in group.scope_spans:
                        taken.extend(
                            {
                                "name": span.name,
                                "id": span.span_id.hex(),
                                "parent": span.parent_span_id.hex(),
                                "trace": span.trace_id.hex(),
                                "pid": process["process.pid"],
                            }
                            for span in scope.spans
                        )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of_trace(self, trace: str) -> dict[str, dict[str, Any]]:
        """name → span."""
        return {span["name"]: span for span in list(self.spans) if span["trace"] == trace}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def watched(
    make_cluster: Callable[..., Cluster], collector: Collector, tmp_path_factory: Any
) -> Iterator[Cluster]:
    """A node, two API processes behind one port, a supervised worker; all options turned on."""
    system = make_cluster(
        nodes=1,
        IMGO_PARTITIONS="1",
        WEB_CONCURRENCY="2",
        # A format that would show the query, as gunicorn's own does.
        GUNICORN_CMD_ARGS="--access-logfile - --access-logformat '%(r)s %(q)s %({x-request-id}o)s'",
        LOG_FORMAT="json",
        LOG_ACCESS="1",
        LOG_PUSHES="1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    directory = tmp_path_factory.mktemp("metrics")
    system.gunicorn.environment = {**system.environment, "TMPDIR": str(directory)}
    system.worker = Workers(system.home, "workers", system.environment)
    system.processes = [*system.nodes, system.worker, system.gunicorn]
    with system:
        yield system


def call(system: Cluster, method: str, url: str, **options: Any) -> httpx.Response:
    """A request over a connection of its own, so that any of the processes may get it."""
    headers = {"Authorization": f"Api-Key {system.api_key}", **options.pop("headers", {})}
    return httpx.request(
        method, url, headers=headers, trust_env=False, timeout=20, **options, verify=NO_TLS
    )


def metric(text: str, name: str) -> float:
    """The value of one line; 0 when there is none."""
    sample = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(sample[1]) if sample else 0.0


def push(system: Cluster, name: str | list[str], to: str = "key", **headers: str) -> httpx.Response:
    push = {"to": {to: name}, "body": {"a": "body of one push"}}
    url = f"{system.api_url}/api/v1/pushes"
    answer = call(system, "POST", url, json=push, headers=headers)
    assert answer.status_code == 202
    return answer


@pytest.mark.parametrize("to", ["key", "keys", "room"])
async def test_a_push_is_one_trace_through_all_processes(
    watched: Cluster, collector: Collector, enter: Callable[..., Any], to: str
) -> None:
    world: World = await enter(watched)
    key = new_key()
    client = await world.session(key, rooms=[key])
    _, trace, caller, flags = PARENT.split("-")
    trace = token_hex(16)
    push(watched, [key] if to == "keys" else key, to, traceparent=f"00-{trace}-{caller}-{flags}")
    await client.receive_bodies(1)
    names = ["POST /api/v1/pushes", "imgo.accept", "imgo.fan_out", "imgo.deliver"]
    wait_until(lambda: set(names) <= collector.of_trace(trace).keys())
    spans = collector.of_trace(trace)
    chain = [spans[name] for name in names]
    assert [span["parent"] for span in chain] == [caller, *(span["id"] for span in chain[:-1])]
    api, _, fan_out, deliver = (span["pid"] for span in chain)
    assert len({api, fan_out, deliver}) == 3
    # The harness's launcher becomes the node itself.
    assert deliver == watched.nodes[0].pid


def test_every_process_behind_a_port_counts(watched: Cluster) -> None:
    (directory,) = Path(watched.gunicorn.environment["TMPDIR"]).glob("imgo-api-*")
    url = f"{watched.api_url}/metrics"
    name = 'imgo_pushes_total{target="key"}'
    before = metric(call(watched, "GET", url).text, name)
    pushed = 0

    def counting() -> set[str]:
        samples = set()
        for file in Path(directory).glob("counter_*.db"):
            values = MmapedDict.read_all_values_from_file(file)
            if any('"imgo_pushes_total"' in key and value for key, value, *_ in values):
                samples.add(file.name)
        return samples

    while len(counting()) < 2 or pushed < 5:  # the kernel gives a connection to either
        push(watched, new_key())
        pushed += 1
        assert pushed < 500
    for _ in range(6):  # whoever answers
        text = call(watched, "GET", url).text
        assert metric(text, name) - before == pushed
        assert text.count("# TYPE imgo_outbox gauge") == 1
    assert metric(text, "imgo_database_up") == 1
    # Of both, when both have been asked for something.
    pool = "imgo_database_pool_connections_max"
    wait_until(lambda: metric(call(watched, "GET", url).text, pool) == 8)


def test_what_a_process_has_counted_outlives_it(watched: Cluster) -> None:
    url = f"{watched.api_url}/metrics"
    name = 'imgo_pushes_total{target="key"}'
    push(watched, new_key())
    before = metric(call(watched, "GET", url).text, name)
    children = [int(pid) for pid in _children(watched.gunicorn.pid)]
    assert len(children) == 2
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: len(set(_children(watched.gunicorn.pid)) - set(map(str, children))) == 2, 30)
    wait_until(watched.gunicorn.is_ready)
    text = call(watched, "GET", url).text
    assert metric(text, name) == before
    assert metric(text, "imgo_database_pool_connections_max") <= 8  # of the living


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_workers_have_a_port_of_their_own(watched: Cluster) -> None:
    url = f"{watched.worker.url}/metrics"
    name = "imgo_fanout_latency_seconds_count"
    before = metric(call(watched, "GET", url).text, name)
    push(watched, new_key())
    wait_until(lambda: metric(call(watched, "GET", url).text, name) > before)
    text = call(watched, "GET", url).text
    assert metric(text, 'imgo_fanout_latency_seconds_bucket{le="300.0"}') >= before + 1
    assert metric(text, "imgo_database_pool_connections_max") == 4
    assert httpx.get(url, trust_env=False, verify=NO_TLS).status_code == 401
    assert call(watched, "GET", f"{watched.worker.url}/readyz").json()["checks"]["layer"] == "ok"
    assert call(watched, "POST", f"{watched.worker.url}/api/v1/pushes").status_code == 404


async def test_a_node_tells_of_its_sessions(watched: Cluster, enter: Callable[..., Any]) -> None:
    world: World = await enter(watched)
    url = f"{watched.nodes[0].url}/metrics"
    key = new_key()
    before = call(watched, "GET", url).text
    doors = ("tcp", "text", "binary")
    clients = [await world.session(key, door, rooms=["a room"]) for door in doors]
    push(watched, "a room", "room")
    for client in clients:
        await client.receive_bodies(1)
    text = call(watched, "GET", url).text

    def grown(name: str) -> float:
        return metric(text, name) - metric(before, name)

    assert grown('imgo_sessions{transport="websocket"}') == 2
    assert grown('imgo_sessions_opened_total{source="token",transport="websocket"}') == 2
    assert grown('imgo_sessions_opened_total{source="token",transport="tcp"}') == 1
    assert grown('imgo_frames_written_total{transport="websocket"}') == 2
    assert grown('imgo_frames_written_total{transport="tcp"}') == 1
    assert grown("imgo_delivery_latency_seconds_count") == 1
    assert 0 < grown("imgo_delivery_latency_seconds_sum") < 10
    assert metric(text, 'imgo_waiting_bytes{transport="websocket"}') == 0
    await clients[0].close()
    call(watched, "DELETE", f"{watched.api_url}/api/v1/keys/{key}/sessions")
    for client in clients[1:]:
        await client.ended()
    closed = "imgo_sessions_closed_total"

    def are_counted() -> bool:
        nonlocal text
        text = call(watched, "GET", url).text
        return (
            grown(f'{closed}{{reason="kicked",transport="websocket"}}') == 2
            and grown(f'{closed}{{reason="client",transport="tcp"}}') == 1
        )

    wait_until(are_counted)


async def test_a_push_can_be_followed_through_the_logs(
    watched: Cluster, enter: Callable[..., Any]
) -> None:
    world: World = await enter(watched)
    key, request = new_key(), f"request-{token_hex(8)}"
    client = await world.session(key)
    number = push(watched, key, **{"X-Request-ID": request}).json()["id"]
    await client.receive_bodies(1)
    expected = [
        (watched.gunicorn, "accepted", request),
        (watched.worker, "fanned out", request),
        (watched.nodes[0], "delivered", None),
    ]
    for process, what, asked in expected:

        def said(log: Path = process.log) -> list[tuple[str, str | None]]:
            lines = map(json.loads, log.read_text().splitlines())
            return [
                (line["message"], line.get("request_id"))
                for line in lines
                if line.get("push_id") == number
            ]

        wait_until(said)
        assert said() == [(f"push {number} {what}", asked)]


def test_every_line_is_json_and_knows_its_request(watched: Cluster) -> None:
    query = {"apikey": watched.api_key}
    answer = httpx.get(
        f"{watched.api_url}/api/v1/stats",
        params=query,
        headers={"X-Request-ID": "the-request-of-this-test"},
        trust_env=False,
        verify=NO_TLS,
    )
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (200, "the-request-of-this-test")

    def lines() -> list[dict[str, Any]]:
        texts = [process.log.read_text() for process in watched.processes]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def of_request(logger: str) -> list[dict[str, Any]]:
        return [
            line
            for line in lines()
            if line["logger"] == logger and "the-request-of-this-test" in json.dumps(line)
        ]

    wait_until(lambda: of_request("gunicorn.access"))
    (theirs,) = of_request("gunicorn.access")
    assert theirs["message"].startswith("GET /api/v1/stats?apikey=hidden HTTP/1.1 apikey=hidden ")
    (ours,) = of_request("imgo.access")
    assert (ours["path"], ours["status"], ours["caller"]) == ("/api/v1/stats", 200, "IMGO_API_KEY")
    assert watched.api_key not in watched.gunicorn.log.read_text()
    assert {line["level"] for line in lines()} <= {"INFO", "WARNING", "ERROR"}


@pytest.mark.long
def test_a_worker_of_celerys_own_answers_for_itself(watched: Cluster) -> None:
    (port,) = free_ports(1)
    settings = {"IMGO_WORKER_METRICS_PORT": str(port)}
    alone = Worker(watched.home, "alone", {**watched.environment, **settings})
    url = f"http://{HOST}:{port}"
    fan_outs = "imgo_fanout_latency_seconds_count"
    try:
        with watched.worker.paused():  # all tasks are for the other
            alone.launch()

            def has_counted() -> bool:
                push(watched, new_key())
                try:
                    return metric(call(watched, "GET", f"{url}/metrics").text, fan_outs) > 0
                except httpx.TransportError:
                    return False

            wait_until(has_counted, 60)
        alone.stop()
    finally:
        alone.kill()


def test_a_port_in_use_ends_the_workers_and_names_the_setting(watched: Cluster) -> None:
    second = Workers(watched.home, "second", watched.environment)
    second.environment["IMGO_WORKER_METRICS_PORT"] = str(watched.worker.port)
    alone = Worker(watched.home, "lonely", second.environment)
    for worker in (second, alone):
        worker.launch()
        assert worker.wait() == 1
        assert "IMGO_WORKER_METRICS_PORT" in worker.log.read_text()
