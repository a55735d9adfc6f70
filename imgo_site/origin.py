"""What a push came with: the id of its request and the span that it belongs to, in one text.

It goes with the push through the outbox, so that whoever fans it out, and whenever, can say in
logs and traces where it came from.
"""

from imgo_site import logs, tracing

ORIGIN_MAX = 160  # characters: a request id of 100, a space, a traceparent of 55


def current_origin() -> str:
    """Of what is under way; "" when there is nothing to tell."""
    return f"{logs.request_id()} {tracing.traceparent()}".rstrip()


def request_of(origin: str) -> str:
    """The request's id, "" when there was none."""
    return origin.partition(" ")[0]


def parent_of(origin: str) -> str:
    """The traceparent, "" when there was none."""
    return origin.partition(" ")[2]
