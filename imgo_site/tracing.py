"""Traces by OpenTelemetry, when `OTEL_EXPORTER_OTLP_ENDPOINT` is set; else nothing happens here.

The packages are no requirement: `pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-
http`. A trace goes on in another process by its `traceparent`, a text: a caller's header, a row of
the outbox, an entry of the envelope.
"""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORT_TIMEOUT = 2  # seconds, unless its variable says: what a collector that is away costs an exit

_NOTHING: AbstractContextManager[None] = nullcontext()


@cache
def tracer() -> Any:
    """OpenTelemetry's tracer of this process, made with its first use; None without tracing."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning(
            "There are no traces: %s. Install opentelemetry-sdk and "
            "opentelemetry-exporter-otlp-proto-http, or unset %s.",
            error,
            ENDPOINTS[0],
        )
        return None
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "imgo"}
    provider = TracerProvider(resource=Resource.create({**named, "process.pid": os.getpid()}))
    timeout = None if os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") else EXPORT_TIMEOUT
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout)))
    return provider.get_tracer("imgo")


def span(
    name: str, *, parent: str = "", kind: str = "internal", **attributes: Any
) -> AbstractContextManager[Any]:
    """A span of what is done inside; entered, it is None without tracing.

    `parent`: a traceparent; without one it is part of the span around it.
    """
    found = tracer()
    if found is None:
        return _NOTHING
    manager: AbstractContextManager[Any] = found.start_as_current_span(
        name, _context(parent), _kind(kind), attributes
    )
    return manager


def begin(name: str, parent: str, **attributes: Any) -> Any:
    """A span that its owner ends with `end()`; None without tracing, or without a parent."""
    found = tracer() if parent else None
    if found is None:
        return None
    return found.start_span(name, _context(parent), _kind("consumer"), attributes)


def note(recording: Any, name: str, **attributes: Any) -> None:
    """Give a span a better name, unless that is empty, and attributes."""
    if name:
        recording.update_name(name)
    recording.set_attributes(attributes)


def traceparent(recording: Any = None) -> str:
    """Of this span, or of the one around the caller; "" when there is none."""
    if tracer() is None:
        return ""
    from opentelemetry import trace

    context = (recording or trace.get_current_span()).get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _context(parent: str) -> Any:
    if not parent:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def _kind(name: str) -> Any:
    from opentelemetry.trace import SpanKind

    return SpanKind[name.upper()]
