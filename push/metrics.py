"""What this process counts, for Prometheus. Every process has its own: scrape each."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

from push.wire import CloseCode

CONTENT_TYPE = CONTENT_TYPE_LATEST

SESSIONS = Gauge("imgo_sessions", "Open sessions of this node.")
CLOSES = Counter("imgo_closes", "Connections that the server closed, by reason.", ["reason"])
DROPS = Counter("imgo_drops", "Messages that were not delivered, by reason.", ["reason"])
RECOVERED = Counter("imgo_recovered", "Messages found pending that had passed by this node.")
SWEPT = Counter("imgo_swept", "Messages fanned out by this node because their task was lost.")
LAYER_RECONNECTS = Counter("imgo_layer_reconnects", "Connections to the layer, made anew.", ["why"])
PUSHES = Counter("imgo_pushes", "Pushes that this process accepted, by target.", ["target"])


def count_close(code: int) -> None:
    """The server closes a connection with this code."""
    known = code in CloseCode._value2member_map_
    CLOSES.labels(CloseCode(code).name.lower() if known else str(code)).inc()


def text() -> bytes:
    """All of it, in Prometheus's text format."""
    return generate_latest()
