"""Text of `/metrics`, with the sessions' metrics brought up to date."""

from push.metrics import exposition
from push.session.session_metrics import node

CONTENT_TYPE = exposition.CONTENT_TYPE


def text() -> bytes:
    """Return all metrics in Prometheus's text format."""
    node.note()
    return exposition.text()
