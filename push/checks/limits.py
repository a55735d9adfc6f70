"""Checks of numbers: out of range, in contradiction to each other, or harmful."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from django.db import connection

from imgo_site.conf import conf
from imgo_site.names import INT32_MAX
from imgo_site.setting_values import shown
from push.checks.reading import with_settings

PORT_MAX = 65_535
NUMBER_MAX = INT32_MAX  # valid for timers, the database and the kernel; as seconds 68 years
HEARTBEAT_MIN = 10.0  # seconds; phones and proxies sleep for longer than clients expect
LEASE_MIN = 5.0  # seconds; a lease is renewed three times in its length; a busy node may be late
FRAME_OVERHEAD = 1024  # bytes that a body's frame may add: headers, ids, WebSocket
TEXT_FACTOR = 2  # bytes of a text frame for one of a body: quotes and newlines are escaped
# Seconds. Postgres counts milliseconds in 32 bits, and some waits are several times this long.
DATABASE_TIMEOUT_MAX = 86_400
INFO_MAX = 65_536  # bytes; a room's list with such infos has four members
PARTITIONS_MAX = 1_000  # each is a queue, and a process of `manage.py workers`


@dataclass(frozen=True)
class Range:
    """Range from `lowest` to `highest`. `lowest` itself is in it only if `includes` is True."""

    lowest: float
    highest: float = NUMBER_MAX
    includes: bool = True

    def has(self, value: float) -> bool:
        """Return whether `value` is in the range; NaN never is."""
        above = value >= self.lowest if self.includes else value > self.lowest
        return above and value <= self.highest

    def __str__(self) -> str:
        least = "from" if self.includes else "more than"
        most = "to" if self.includes else "and at most"
        return f"{least} {self.lowest:.10g} {most} {self.highest:.10g}"


NON_NEGATIVE = Range(0)  # 0 means none, at once, or no limit, as the setting's text explains
POSITIVE_INTEGER = Range(1)
POSITIVE = Range(0, includes=False)

RANGES = {
    "HTTP_PORT": Range(1, PORT_MAX),
    "WS_PORT": Range(0, PORT_MAX),
    "WORKER_METRICS_PORT": Range(0, PORT_MAX),
    "TCP_PORT": Range(0, PORT_MAX),
    "PARTITIONS": Range(1, PARTITIONS_MAX),
    "SESSION_BYTES": Range(FRAME_OVERHEAD),
    "TCP_FRAME_GAP": Range(0, 1),
    "PRESENCE_INFO_MAX": Range(len("{}"), INFO_MAX),
    "DATABASE_TIMEOUT": Range(0, DATABASE_TIMEOUT_MAX, includes=False),
    "REPLICA_LAG_MAX": Range(0, includes=False),
    **dict.fromkeys(
        (
            "AUTH_FAILURES",
            "JWT_LEEWAY",
            "MAX_SESSIONS_PER_KEY",
            "MAX_ROOMS_PER_SESSION",
            "MAX_PUBLISHES_PER_SECOND",
            "BATCH_WINDOW",
            "DEDUPE_WINDOW",
            "RECORD_KEEP",
            "LOADER_WINDOW",
            "PRESENCE_GRACE",
            "NOTIFY_AFTER",
            "GROUP_LINGER",
            "DRAIN_SECONDS",
            "REVALIDATE_INTERVAL",
        ),
        NON_NEGATIVE,
    ),
    **dict.fromkeys(
        (
            "MAX_CLIENT_BODY",
            "MAX_AUTH_BODY",
            "STREAMS_MAX",
            "STREAM_TAILS",
            "PRESENCE_MAX",
            "MAX_FRAMES_PER_SECOND",
            "BATCH_MAX",
            "MAX_BODY",
            "MAX_KEYS",
            "MAX_PUSHES",
            "MAX_REQUEST",
            "MAX_FORM",
            "MAX_STRAY_BODY",
            "MAX_BODIES",
            "MAX_HEADERS",
            "MAX_UNAUTHENTICATED",
            "BODY_RATE",
            "TTL",
            "LIVE_TTL",
            "MAX_TTL",
            "MAX_DELAY",
            "OFFLINE_MAX",
            "REPLAY_PAGE",
            "DATABASE_THREADS",
            "HOOK_CONNECTIONS",
            "WEBHOOKS_MAX",
            "DEVICES_PER_KEY",
            "DEVICES_MAX",
            "DEVICE_TTL",
            "NOTIFY_CONCURRENCY",
            "NOTIFY_RATE",
            "LISTEN_BACKLOG",
        ),
        POSITIVE_INTEGER,
    ),
    **dict.fromkeys(
        (
            "HANDSHAKE_TIMEOUT",
            "HOOK_TIMEOUT",
            "WEBHOOK_TIMEOUT",
            "NOTIFY_TIMEOUT",
            "BODY_TIMEOUT",
            "STREAM_LINE_TIMEOUT",
            "STREAM_IDLE_TIMEOUT",
            "HEARTBEAT_TIMEOUT",
            "SLOW_READER_TIMEOUT",
            "NODE_LEASE",
            "SWEEP_AFTER",
            "AUDIT_INTERVAL",
            "CANARY_INTERVAL",
        ),
        POSITIVE,
    ),
}


@register
@with_settings
def check_ranges() -> Iterator[CheckMessage]:
    """E006: a number out of its range."""
    for name, allowed in RANGES.items():
        value = getattr(conf, name)
        if not allowed.has(value):
            yield Error(f"{name} is {shown(value)}.", hint=f"It must be {allowed}.", id="imgo.E006")


@register
@with_settings
def check_pairs() -> Iterator[CheckMessage]:
    """E007: two settings that contradict each other."""
    upload = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    pairs = [
        ("TTL", conf.TTL, "MAX_TTL", conf.MAX_TTL, "no push could have the lifetime it gets"),
        ("MAX_BODY", conf.MAX_BODY, "MAX_REQUEST", conf.MAX_REQUEST, "no request could carry it"),
        ("MAX_REQUEST", conf.MAX_REQUEST, "MAX_BODIES", conf.MAX_BODIES, "none would fit"),
    ]
    if upload is not None:
        name = "DATA_UPLOAD_MAX_MEMORY_SIZE"
        pairs.append(("MAX_REQUEST", conf.MAX_REQUEST, name, upload, "Django reads no more"))
    for low, low_value, high, high_value, why in pairs:
        if low_value > high_value:
            yield Error(
                f"{low} ({shown(low_value)}) is more than {high} ({shown(high_value)}): {why}.",
                hint=f"Lower {low}, or raise {high}.",
                id="imgo.E007",
            )
    if conf.TCP_PORT and conf.TCP_PORT in {conf.HTTP_PORT, conf.WS_PORT}:
        yield Error(
            f"TCP_PORT is {conf.TCP_PORT}, and so is HTTP_PORT or WS_PORT.",
            hint="Raw TCP needs a port of its own; 0 turns it off.",
            id="imgo.E007",
        )


@register
@with_settings
def check_times() -> Iterator[CheckMessage]:
    """W005: a HEARTBEAT_TIMEOUT so short that working sessions are closed.

    W006: a NODE_LEASE so short that busy nodes count as dead.
    """
    heartbeat, handshake = conf.HEARTBEAT_TIMEOUT, conf.HANDSHAKE_TIMEOUT
    if heartbeat <= handshake or heartbeat < HEARTBEAT_MIN:
        yield checks.Warning(
            f"HEARTBEAT_TIMEOUT is {heartbeat:g} s: working sessions would be closed.",
            hint=f"Set it to {HEARTBEAT_MIN:g} s or more, to more than HANDSHAKE_TIMEOUT "
            f"({handshake:g} s), and to twice the pause between your clients' heartbeats.",
            id="imgo.W005",
        )
    if conf.NODE_LEASE < LEASE_MIN:
        yield checks.Warning(
            f"NODE_LEASE is {conf.NODE_LEASE:g} s, renewed every {conf.NODE_LEASE / 3:.2g} s: a "
            "node that is busy for a moment would count as dead, with its sessions and rooms.",
            hint=f"Set it to {LEASE_MIN:g} s or more; the default is 30.",
            id="imgo.W006",
        )


@register
@with_settings
def check_frames() -> Iterator[CheckMessage]:
    """W010: a MAX_BODY or MAX_CLIENT_BODY so large that one message can close its session.

    W011: a database pool that logins can use up, so that the API gets no connection.
    """
    for name in ("MAX_BODY", "MAX_CLIENT_BODY"):
        largest = TEXT_FACTOR * getattr(conf, name) + FRAME_OVERHEAD
        if largest > conf.SESSION_BYTES:
            yield checks.Warning(
                f"{name} ({getattr(conf, name)} bytes) may make frames of {largest} bytes, and a "
                f"session is closed when {conf.SESSION_BYTES} bytes (SESSION_BYTES) wait for it.",
                hint=f"Lower {name}, or raise SESSION_BYTES to several times {largest}.",
                id="imgo.W010",
            )
    pool = connection.settings_dict.get("OPTIONS", {}).get("pool")
    size = pool.get("max_size") if isinstance(pool, dict) else None
    if size is not None and size <= conf.DATABASE_THREADS:
        yield checks.Warning(
            f"DATABASE_THREADS is {conf.DATABASE_THREADS}, and the pool has {size} connections: "
            "while many clients connect, the API gets none.",
            hint="Set DATABASE_POOL_SIZE to more than DATABASE_THREADS.",
            id="imgo.W011",
        )
