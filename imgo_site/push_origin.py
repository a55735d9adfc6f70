"""The origin of a push: the id of its request and the traceparent of its span, in one text.

The origin is stored with the push in the outbox. So the process that fans the push out can add
both to its logs and traces.
"""

from imgo_site import logs, tracing

ORIGIN_MAX = 160  # characters: a request id of 100, a space, a traceparent of 55


def current_origin() -> str:
    """Return the origin for a push of the current request; "" without a request id and a span."""
    return f"{logs.request_id()} {tracing.traceparent()}".rstrip()


def request_of(origin: str) -> str:
    """Return the request's id; "" if there was none."""
    return origin.partition(" ")[0]


def parent_of(origin: str) -> str:
    """Return the traceparent; "" if there was none."""
    return origin.partition(" ")[2]
