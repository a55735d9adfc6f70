"""Settings of sessions, pushes and pending messages, and of the work of nodes and workers."""

from dataclasses import dataclass

from imgo_site.setting_groups.fields import setting


@dataclass(frozen=True)
class DeliverySettings:
    """How sessions are kept, pushes are accepted, and messages are stored and delivered."""

    # Sessions.
    HANDSHAKE_TIMEOUT: float = setting(
        5.0,
        "Time from the connection to an open session, seconds. While the server waits for the "
        "client to read what it was sent, the time does not count. Also the time for the first "
        "line and the headers of an HTTP request.",
    )
    MAX_UNAUTHENTICATED: int = setting(
        1_000,
        "Connections of a node that have not authenticated. At the limit the one that has "
        "waited longest is closed.",
    )
    HEARTBEAT_TIMEOUT: float = setting(
        300.0, "Close a session that has sent no frame for this many seconds."
    )
    MAX_SESSIONS_PER_KEY: int = setting(0, "Sessions of one key across all nodes. 0: no limit.")
    SESSION_CAP_POLICY: str = setting(
        "refuse", "At that limit: `refuse` the new session, or `close_oldest`."
    )
    MAX_ROOMS_PER_SESSION: int = setting(100, "Rooms that one session may be in at once.")
    MAX_CLIENT_BODY: int = setting(
        1024, "Largest body of a client's frame, bytes. The default is imgo (Go)'s."
    )
    MAX_AUTH_BODY: int = setting(
        8192,
        "Largest body of a client's first frame, which may name many rooms, and of frames that "
        "renew a token. Bytes.",
    )
    SESSION_BYTES: int = setting(
        1024 * 1024,
        "Unsent bytes that one session may have. Above that, it is closed as a slow reader.",
    )
    SLOW_READER_TIMEOUT: float = setting(
        10.0, "Close a session whose client has not read for this many seconds."
    )
    TCP_FRAME_GAP: float = setting(
        0.005,
        "Pause between two writes to a raw-TCP session that authenticated with a bare token, "
        "seconds. The Java client of imgo (Go) expects one frame in each read. 0: no pause.",
    )
    MAX_FRAMES_PER_SECOND: int = setting(
        100,
        "Frames read from one client in a second, with pings and fragments. The rest is read "
        "in the next second.",
    )
    MAX_PUBLISHES_PER_SECOND: int = setting(
        10,
        "Messages that the clients of one key may publish to rooms in a second, through one node. "
        "Further ones are refused. 0: no limit.",
    )
    BATCH_MAX: int = setting(40, "Messages of a busy room in one write, at most.")
    BATCH_WINDOW: float = setting(0.02, "Longest delay of a message of a busy room, seconds.")

    # Pushing.
    MAX_BODY: int = setting(64 * 1024, "Largest body of a push, bytes.")
    MAX_KEYS: int = setting(10_000, "Keys in one push.")
    MAX_PUSHES: int = setting(1_000, "Pushes in one array.")
    MAX_REQUEST: int = setting(16 * 1024 * 1024, "Largest body of an API request, bytes.")
    MAX_FORM: int = setting(
        1024 * 1024,
        "Largest body of a request to any other view, bytes. Raise it if your views accept "
        "uploads.",
    )
    MAX_STRAY_BODY: int = setting(
        8 * 1024, "Largest body of a request to a path or method that expects none, bytes."
    )
    MAX_BODIES: int = setting(
        64 * 1024 * 1024,
        "Bytes of request bodies that a node holds at once. Above that, requests get a 503.",
    )
    MAX_HEADERS: int = setting(100, "Header fields of one request.")
    BODY_TIMEOUT: float = setting(
        5.0,
        "Time for the body of a request to arrive: `BODY_TIMEOUT + arrived / BODY_RATE` seconds, "
        "with the bytes that have arrived so far.",
    )
    BODY_RATE: int = setting(
        16 * 1024, "Slowest rate at which a large body may arrive, bytes a second. See above."
    )
    STREAM_LINE_TIMEOUT: float = setting(
        10.0, "Time for one line of a stream of pushes to be complete, seconds."
    )
    STREAM_IDLE_TIMEOUT: float = setting(
        3_600.0, "End a stream of pushes in which nothing arrives for this many seconds."
    )
    DEDUPE_WINDOW: int = setting(86_400, "Time for which a `dedupe_id` is remembered, seconds.")
    PARTITIONS: int = setting(
        4,
        "Queues over which keys and rooms are spread. `manage.py workers` runs a worker for each. "
        "Once `manage.py partitions` has changed the number, the database has it.",
    )

    # Offline messages.
    TTL: int = setting(86_400, "Lifetime of a pending message, seconds, unless the push names one.")
    LIVE_TTL: int = setting(
        300,
        "Lifetime of a push to a room or everyone, seconds, unless the push names one. A push that "
        "was not fanned out by then is dropped.",
    )
    MAX_TTL: int = setting(30 * 86_400, "Longest lifetime that a push may name, seconds.")
    MAX_DELAY: int = setting(
        30 * 86_400, "Latest time that `send_at` of a push may name, seconds from now."
    )
    OFFLINE_MAX: int = setting(
        1_000,
        "Pending messages that are kept for one key, and with the scope `each` for one device of "
        "it. Above that, the oldest are dropped.",
    )
    RECORD_KEEP: int = setting(
        86_400,
        "Time for which the record of a push is kept, seconds. It is kept at least for the "
        "push's lifetime.",
    )
    REPLAY_PAGE: int = setting(200, "Pending messages that are read from the database at a time.")

    # Internals.
    LOADER_WINDOW: float = setting(
        0.002,
        "A node waits this many seconds for more logins, and looks all of them up in one query.",
    )
    DATABASE_TIMEOUT: float = setting(
        5.0,
        "Longest wait for one answer of Postgres, in a push or a look-up, seconds. At most a day.",
    )
    DATABASE_THREADS: int = setting(
        2,
        "Database connections of a node for each of three groups of work: logins, sessions, and "
        "cluster jobs. So a node has up to three times as many, beside the pool.",
    )
    REPLICA_DATABASE: str = setting(
        "",
        "Alias in `DATABASES` of a [standby](../howto/postgres-failover.md) of Postgres. The "
        "dashboard, `explain` and the admin's lists are read from it. Empty: from the primary.",
    )
    REPLICA_LAG_MAX: float = setting(
        15.0,
        "A standby whose last replayed transaction is older than this is not read, seconds.",
    )
    GROUP_LINGER: float = setting(
        5.0, "Pause before a node leaves a group without sessions, seconds."
    )
    NODE_LEASE: float = setting(
        30.0, "A node that has not renewed its lease for this many seconds counts as dead."
    )
    DRAIN_SECONDS: float = setting(
        5.0, "Time over which a stopping node spreads the closing of its sessions, seconds."
    )
    REVALIDATE_INTERVAL: float = setting(
        30.0, "Seconds between two checks of the token or login of each session. 0: never."
    )
    SWEEP_AFTER: float = setting(
        5.0, "Age at which a node fans out a message itself, because its task was lost, seconds."
    )
    AUDIT_INTERVAL: float = setting(
        60.0,
        "Interval in which a node looks once for pending messages of each of its connected keys, "
        "and delivers those that it missed, seconds.",
    )
    CANARY_INTERVAL: float = setting(
        10.0,
        "Seconds between two canaries, test tasks that show whether a worker takes tasks. A "
        "worker that misses three is reported, and restarted by `manage.py workers`.",
    )
    WORKER_METRICS_PORT: int = setting(
        0,
        "Port at which `manage.py workers` serves `/metrics` and `/readyz` for its workers. "
        "0: none.",
    )
    LISTEN_BACKLOG: int = setting(4096, "Connections the kernel may queue for a listener.")
    REUSE_PORT: bool = setting(
        False,
        "Share the ports with other nodes of the machine. `manage.py imgo --processes` sets it.",
    )
