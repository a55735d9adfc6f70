"""Tracing: nothing at all when it is off, and what a span knows when it is on."""

import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from imgo_site import tracing
from imgo_site.push_origin import current_origin, parent_of, request_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def off(monkeypatch):
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.tracer.cache_clear()
    yield
    tracing.tracer.cache_clear()


@pytest.fixture
def exporter(monkeypatch):
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    made = provider.get_tracer("tests")
    monkeypatch.setattr(tracing, "tracer", lambda: made)
    return found


def test_without_an_endpoint_nothing_is_traced(off):
    with tracing.span("a", parent=PARENT) as span:
        assert span is None
        assert tracing.traceparent() == ""
    assert tracing.begin("b", PARENT) is None
    assert current_origin() == ""


def test_without_the_packages_the_log_says_what_to_install(off, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    for _ in range(2):
        with tracing.span("a") as span:
            assert span is None
    (record,) = caplog.records
    assert "Install opentelemetry-sdk" in record.getMessage()


def test_it_can_be_turned_off_as_everywhere(off, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.tracer() is None


def test_a_span_goes_on_where_its_traceparent_is_from(exporter):
    with tracing.span("outer", parent=PARENT), tracing.span("inner", pushes=2):
        handed_on = tracing.traceparent()
    later = tracing.begin("later", handed_on)
    later.end()
    inner, outer, last = exporter.get_finished_spans()
    assert [span.name for span in (inner, outer, last)] == ["inner", "outer", "later"]
    assert f"{outer.parent.span_id:016x}" == PARENT.split("-")[2]
    assert inner.parent.span_id == outer.context.span_id
    assert last.parent.span_id == inner.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in (inner, outer, last)} == {
        PARENT.split("-")[1]
    }
    assert inner.attributes["pushes"] == 2


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_caller_without_a_good_traceparent_begins_a_trace(exporter, parent):
    with tracing.span("a", parent=parent):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_a_request_is_a_span_with_its_route_and_not_its_path(exporter, client):
    answer = client.get("/api/v1/keys/alice", headers={"traceparent": PARENT})
    assert answer.status_code == 401
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /api/v1/keys/<path:key>"
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert span.attributes["http.response.status_code"] == 401
    assert span.attributes["imgo.request_id"] == answer["X-Request-ID"]
    assert "alice" not in str(dict(span.attributes))


def test_an_origin_is_taken_apart_again():
    assert (request_of("abc 00-1"), parent_of("abc 00-1")) == ("abc", "00-1")
    assert (request_of("abc"), parent_of("abc")) == ("abc", "")
    assert (request_of(" 00-1"), parent_of(" 00-1")) == ("", "00-1")
    assert (request_of(""), parent_of("")) == ("", "")
