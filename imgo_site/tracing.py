"""Traces by OpenTelemetry, if `OTEL_EXPORTER_OTLP_ENDPOINT` is set; else the functions do nothing.

The packages are optional: `pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http`.
The text `traceparent` continues a trace in another process. It is in a caller's header, in a row of
the outbox, and in an envelope.
"""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# Seconds, unless OpenTelemetry's variable sets it. An exit waits so long for a collector that is
# unavailable.
EXPORT_TIMEOUT = 2

_NOTHING: AbstractContextManager[None] = nullcontext()


@cache
def tracer() -> Any:
    """Return OpenTelemetry's tracer of this process, created on first use; None without tracing."""
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
    """Return a context manager that records a span of its block; it yields None without tracing.

    `parent`: a traceparent; "" makes the span a child of the current span.
    """
    current_tracer = tracer()
    if current_tracer is None:
        return _NOTHING
    manager: AbstractContextManager[Any] = current_tracer.start_as_current_span(
        name, _context(parent), _kind(kind), attributes
    )
    return manager


def begin(name: str, parent: str, **attributes: Any) -> Any:
    """Return a span that the caller ends with `end()`; None without tracing or a parent."""
    current_tracer = tracer() if parent else None
    if current_tracer is None:
        return None
    return current_tracer.start_span(name, _context(parent), _kind("consumer"), attributes)


def describe_span(recording: Any, name: str, **attributes: Any) -> None:
    """Set the attributes of a span, and its name if `name` is not empty."""
    if name:
        recording.update_name(name)
    recording.set_attributes(attributes)


def traceparent(recording: Any = None) -> str:
    """Return the traceparent of a span, None for the current span; "" if there is none."""
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
