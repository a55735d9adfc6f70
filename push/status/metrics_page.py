"""Text of `/metrics`, with the sessions' metrics brought up to date."""

from imgo_site.process_parts import process
from push.metrics import exposition
from push.session.session_metrics import SessionFigures

CONTENT_TYPE = exposition.CONTENT_TYPE


def text() -> bytes:
    """Return all metrics in Prometheus's text format."""
    process.get(SessionFigures).update()
    return exposition.text()
