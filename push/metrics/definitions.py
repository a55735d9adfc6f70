"""The metrics of imgo, for Prometheus.

Counters and histograms belong to one process. Metrics in `CLUSTER_REGISTRY` describe the whole
installation and are computed for each scrape.
"""

from typing import Any

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from push.wire import CloseCode

# Label values that are exported from the start: a rate misses the first count of a new series.
SOURCES = ("token", "jwt", "session", "goim", "dashboard", "hook")
DROP_REASONS = (
    "busy_group",
    "cancelled",
    "replaced",
    "stale",
    "expired",
    "malformed",
    "offline_max",
    "parked",
    "superseded",
    "too_late",
)
LOST_RECEIPTS = ("backlog", "refused", "stop")
HOOKS = ("authenticate", "authorize_room", "receive")
HOOK_OUTCOMES = (
    "abandoned",
    "answered",
    "bad_answer",
    "circuit_open",
    "overloaded",
    "timeout",
    "unreachable",
)
PROVIDERS = ("webpush", "apns", "fcm")
NOTIFY_OUTCOMES = (
    "sent", "retried", "stopped", "gone", "rejected", "given_up", "closed", "close_failed",
)  # fmt: skip
WEBHOOK_OUTCOMES = ("delivered", "failed", "parked")
OUTCOMES = ("committed", "aborted", "unknown")
RECONNECTS = ("lost", "silent")
REFUSED_STATUSES = ("400", "401", "403", "408", "413", "414", "431", "500", "503")
TARGETS = ("key", "room", "all")
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)

# `_created` is a second series for each counter. Shared counters lack it, and nothing uses it.
disable_created_metrics()  # type: ignore[no-untyped-call]

OPENED = Counter(
    "imgo_sessions_opened",
    "Sessions that were opened, by transport and by the kind of login.",
    ["transport", "source"],
)
CLOSED = Counter(
    "imgo_sessions_closed",
    "Sessions that ended, by transport and reason; `client`: it left or its connection broke.",
    ["transport", "reason"],
)
CLOSES = Counter(
    "imgo_closes",
    "Connections that the server closed, by reason, also before they became a session.",
    ["reason"],
)
REFUSED = Counter(
    "imgo_sessions_refused",
    "Connections that were refused before they became a session, by reason.",
    ["reason"],
)
EVICTED = Counter(
    "imgo_connections_evicted",
    "Unauthenticated connections that were closed to make room for others.",
)
REQUESTS_REFUSED = Counter(
    "imgo_requests_refused",
    "HTTP requests that were refused before they were complete, by status.",
    ["status"],
)
for _status in REFUSED_STATUSES:
    REQUESTS_REFUSED.labels(_status)
DROPS = Counter("imgo_drops", "Messages that were not delivered, by reason.", ["reason"])
ACKS_DROPPED = Counter(
    "imgo_acks_dropped",
    "Acknowledged ids that were dropped: they were not sent to the session, and were too many.",
)
UPSTREAM_DROPPED = Counter(
    "imgo_upstream_dropped",
    "Frames of clients of Server-Sent Events that were dropped: too many of a session waited.",
)
STREAM_GAPS = Counter(
    "imgo_stream_gaps_total",
    "Gaps in rooms with history that clients were told of (op 29).",
)
STREAM_RECOVERIES = Counter(
    "imgo_stream_recoveries_total",
    "Sessions that joined a room with a position.",
    ["recovered"],
)
PRESENCE_DIFFS = Counter(
    "imgo_presence_diffs",
    "Frames about who joined and left a room (op 28) that were written to sessions.",
)
PRESENCE_MENDS = Counter(
    "imgo_presence_mends",
    "Copies of who is in a room that this node read again because a change did not arrive.",
)
PRESENCE_REAPED = Counter(
    "imgo_presence_reaped", "Dead or stopped nodes whose keys this node took out of their rooms."
)
RECOVERED = Counter(
    "imgo_recovered", "Messages that this node had missed, and found pending and delivered."
)
SWEPT = Counter("imgo_swept", "Messages fanned out by this node because their task was lost.")
LAYER_RECONNECTS = Counter(
    "imgo_layer_reconnects", "Reconnections to the channel layer, by reason.", ["why"]
)
TASK_RESTARTS = Counter(
    "imgo_task_restarts",
    "Failures of a process's long-lived tasks, each followed by a restart, by task.",
    ["task"],
)
RECEIPTS_LOST = Counter(
    "imgo_receipts_lost",
    "Receipts that were dropped before they were stored, by reason; the message is sent again.",
    ["reason"],
)
for _reason in LOST_RECEIPTS:
    RECEIPTS_LOST.labels(_reason)
REACH_LOST = Counter(
    "imgo_reach_lost",
    "Messages to rooms and to everyone whose number of sessions was not stored.",
)
HOOK_CALLS = Counter(
    "imgo_hook_calls", "Questions to the user's backend, by hook and outcome.", ["hook", "outcome"]
)
HOOK_SECONDS = Histogram(
    "imgo_hook_seconds",
    "Time until the backend's answer, with the wait for a connection, by hook.",
    ["hook"],
    buckets=SECONDS,
)
for _hook in HOOKS:
    for _outcome in HOOK_OUTCOMES:
        HOOK_CALLS.labels(_hook, _outcome)
WEBHOOK_DELIVERIES = Counter(
    "imgo_webhook_deliveries",
    "Requests of webhooks by outcome: delivered, failed and sent again, or parked.",
    ["outcome"],
)
for _outcome in WEBHOOK_OUTCOMES:
    WEBHOOK_DELIVERIES.labels(_outcome)
WEBHOOK_EVENTS_DROPPED = Counter(
    "imgo_webhook_events_dropped",
    "Events for webhooks that were dropped: too many waited, or they were parked for too long.",
)
NOTIFICATIONS = Counter(
    "imgo_notifications",
    "Notifications to devices by provider and outcome: `sent`, `retried`, `stopped` because the "
    "key had settled the message, `gone` device, `rejected`, or `given_up` because it could not "
    "be sent while the message lived. Of those that were shown: `closed` after their message was "
    "read or cancelled, or `close_failed`.",
    ["provider", "outcome"],
)
for _provider in PROVIDERS:
    for _outcome in NOTIFY_OUTCOMES:
        NOTIFICATIONS.labels(_provider, _outcome)
KEY_EVENTS = Counter(
    "imgo_key_events",
    "Changes that this process stored: keys in `EVENT_KEYS` online or offline, rooms in "
    "`EVENT_ROOMS` occupied or vacated.",
    ["event"],
)
for _event in ("online", "offline", "occupied", "vacated"):
    KEY_EVENTS.labels(_event)
KEY_LEASES_LOST = Counter(
    "imgo_key_leases_lost",
    "Times that a node had to store all its keys in `EVENT_KEYS` again: others took it for dead, "
    "or the database is another one.",
)
SESSION_RECORDS_LOST = Counter(
    "imgo_session_records_lost",
    "Keys whose last opening, refusal or closing was dropped before it was stored.",
)
PUSHES = Counter("imgo_pushes", "Pushes that this process accepted, by target.", ["target"])
PUBLISHES_REFUSED = Counter(
    "imgo_publishes_refused",
    "Messages that clients published to rooms and that were refused, by the code of the reply.",
    ["code"],
)
LOST_COMMITS = Counter(
    "imgo_lost_commits",
    "Commits of pushes whose answer was lost, by outcome: committed, aborted, unknown.",
    ["outcome"],
)
for _outcome in OUTCOMES:
    LOST_COMMITS.labels(_outcome)
for _reason in DROP_REASONS:
    DROPS.labels(_reason)
for _target in TARGETS:
    PUSHES.labels(_target)
SCHEDULE_SECONDS = Histogram(
    "imgo_schedule_latency_seconds",
    "From when a scheduled push was due until it was stored as a message, by the database's clock.",
    buckets=SECONDS,
)
FANOUT_SECONDS = Histogram(
    "imgo_fanout_latency_seconds",
    "From acceptance until the channel layer had the message, by the database's clock.",
    buckets=SECONDS,
)
DELIVERY_SECONDS = Histogram(
    "imgo_delivery_latency_seconds",
    "From acceptance (the database's clock) until this node had written the message to all its "
    "sessions that it was for (this host's clock).",
    buckets=SECONDS,
)

# The sessions of a node; if nodes share a directory, the sum over the live ones.
SESSIONS = Gauge(
    "imgo_sessions", "Open sessions of this node.", ["transport"], multiprocess_mode="livesum"
)
WAITING = Gauge(
    "imgo_waiting_bytes",
    "Bytes that the kernel has not taken yet, of all sessions of this node.",
    ["transport"],
    multiprocess_mode="livesum",
)
FRAMES = Counter(
    "imgo_frames_written",
    "Frames with messages that were written to sessions; one may carry several.",
    ["transport"],
)

PRESENCE_KEYS = Gauge(
    "imgo_presence_keys",
    "Keys that this node holds in rooms with presence, once for each room.",
    multiprocess_mode="livesum",
)
# The database pool of a process; if processes share a directory, the sum over the live ones.
STREAM_TAIL_BYTES = Gauge(
    "imgo_stream_tail_bytes",
    "Memory of this node for the latest messages of rooms with history.",
    multiprocess_mode="livesum",
)
KEY_EVENTS_WAITING = Gauge(
    "imgo_key_events_waiting",
    "Keys of this node in `EVENT_KEYS` that have come online and are not stored yet.",
    multiprocess_mode="livesum",
)
POOL_CONNECTIONS = Gauge(
    "imgo_database_pool_connections",
    "Connections of the database pool, by state: idle or used.",
    ["state"],
    multiprocess_mode="livesum",
)
POOL_MAX = Gauge(
    "imgo_database_pool_connections_max",
    "Connections that the database pool may have.",
    multiprocess_mode="livesum",
)
POOL_WAITING = Gauge(
    "imgo_database_pool_waiting",
    "Threads that wait for a connection of the database pool.",
    multiprocess_mode="livesum",
)
POOL_WAIT_SECONDS = Counter(
    "imgo_database_pool_wait_seconds", "Time spent waiting for a connection of the database pool."
)
POOL_TIMEOUTS = Counter(
    "imgo_database_pool_timeouts", "Waits for a connection of the database pool that timed out."
)

# Computed for each scrape, for the whole installation: every process reports the same values.
CLUSTER_REGISTRY = CollectorRegistry()
DATABASE_UP = Gauge(
    "imgo_database_up", "Whether this process reaches the database.", registry=CLUSTER_REGISTRY
)
PENDING = Gauge(
    "imgo_pending",
    "Deliveries that are pending; above 10,000 the database's estimate.",
    registry=CLUSTER_REGISTRY,
)
STREAM_BYTES = Gauge(
    "imgo_stream_bytes",
    "Bytes that rooms with history keep, measured every 30 s.",
    registry=CLUSTER_REGISTRY,
)
OUTBOX = Gauge(
    "imgo_outbox", "Accepted messages that have not been fanned out yet.", registry=CLUSTER_REGISTRY
)
OUTBOX_AGE = Gauge(
    "imgo_outbox_oldest_seconds",
    "How long the oldest of them has waited.",
    registry=CLUSTER_REGISTRY,
)
OUTBOX_PARKED = Gauge(
    "imgo_outbox_parked", "Messages whose fan-out failed too often.", registry=CLUSTER_REGISTRY
)
WEBHOOK_BACKLOG = Gauge(
    "imgo_webhook_backlog",
    "Events that wait for webhooks, without parked ones.",
    registry=CLUSTER_REGISTRY,
)
WEBHOOK_AGE = Gauge(
    "imgo_webhook_oldest_seconds",
    "How long the oldest of them has waited.",
    registry=CLUSTER_REGISTRY,
)
WEBHOOK_PARKED = Gauge(
    "imgo_webhook_parked",
    "Events of webhooks whose delivery was given up, see `manage.py webhooks`.",
    registry=CLUSTER_REGISTRY,
)
WORKER_SILENCE = Gauge(
    "imgo_worker_silence_seconds",
    "Seconds since a worker took a canary of the partition.",
    ["partition"],
    registry=CLUSTER_REGISTRY,
)
WORKER_DEAF = Gauge(
    "imgo_worker_deaf",
    "1 when no worker has taken a canary of the partition for too long.",
    ["partition"],
    registry=CLUSTER_REGISTRY,
)
BALANCE = Gauge(
    "imgo_balance",
    "Deliveries of the latest messages by state; `missing` must be 0.",
    ["state", "reason"],
    registry=CLUSTER_REGISTRY,
)


def count_close(code: int) -> None:
    """Count a connection that the server closes with this code."""
    CLOSES.labels(reason_of(code)).inc()


def reason_of(code: int) -> str:
    """Return the label of a close code; 0 means that the client closed."""
    if not code:
        return "client"
    return CloseCode(code).name.lower() if code in CloseCode._value2member_map_ else str(code)


# Source of the reference in docs/metrics.md


def families() -> dict[str, tuple[str, list[str], str, bool]]:
    """Return name → (type, labels, help, is it computed for each scrape?) of imgo's metrics."""
    metrics = {}
    for registry in (REGISTRY, CLUSTER_REGISTRY):
        collectors: dict[Any, list[str]] = registry._collector_to_names.copy()
        for collector, names in collectors.items():
            if not names[0].startswith("imgo_"):
                continue  # prometheus_client's own, about Python and the process
            for metric in collector.describe():
                name = f"{metric.name}_total" if metric.type == "counter" else metric.name
                labels = list(collector._labelnames)
                metrics[name] = (
                    metric.type,
                    labels,
                    metric.documentation,
                    registry is CLUSTER_REGISTRY,
                )
    return metrics


def markdown_table() -> str:
    """Return the table of metrics in docs/metrics.md."""
    lines = ["| metric | type | labels | |", "|---|---|---|---|"]
    for name, (kind, labels, help_text, _) in sorted(families().items()):
        label_list = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {label_list} | {help_text} |")
    return "\n".join(lines)
