"""What this process counts, for Prometheus. Every process has its own: scrape each."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

from push.wire import CloseCode

CONTENT_TYPE = CONTENT_TYPE_LATEST

SESSIONS = Gauge("imgo_sessions", "Open sessions of this node.")
CLOSES = Counter("imgo_closes", "Connections that the server closed, by reason.", ["reason"])
DROPS = Counter("imgo_drops", "Messages that were not delivered, by reason.", ["reason"])


def count_close(code: int) -> None:
    """The server closes a connection with this code."""
    known = code in CloseCode._value2member_map_
    CLOSES.labels(CloseCode(code).name.lower() if known else str(code)).inc()


def text() -> bytes:
    """All of it, in Prometheus's text format."""
    return generate_latest()
