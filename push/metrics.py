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

# About the whole installation: the same in every process that is asked.
DATABASE_UP = Gauge("imgo_database_up", "Whether this process reaches the database.")
OUTBOX = Gauge("imgo_outbox", "Accepted messages that have not been fanned out yet.")
OUTBOX_AGE = Gauge("imgo_outbox_oldest_seconds", "How long the oldest of them has waited.")
OUTBOX_PARKED = Gauge("imgo_outbox_parked", "Messages whose fan-out failed too often.")
WORKER_SILENCE = Gauge(
    "imgo_worker_silence_seconds", "Since a worker took a canary of the partition.", ["partition"]
)
WORKER_DEAF = Gauge("imgo_worker_deaf", "1 when that is too long.", ["partition"])
BALANCE = Gauge(
    "imgo_balance",
    "Deliveries of the latest messages by what became of them; `missing` must be 0.",
    ["state", "reason"],
)


def count_close(code: int) -> None:
    """The server closes a connection with this code."""
    known = code in CloseCode._value2member_map_
    CLOSES.labels(CloseCode(code).name.lower() if known else str(code)).inc()


def text() -> bytes:
    """All of it, in Prometheus's text format."""
    return generate_latest()
