"""imgo's own settings: one dataclass with every name, its default, its unit and its reason.

Read them as `conf.HEARTBEAT_TIMEOUT`. A value comes from the first of these that has it: the
environment variable `IMGO_<NAME>`, the `IMGO` dictionary of Django's settings, the default below.
An empty variable counts as unset. A value is read once, and again after Django's
`setting_changed` signal.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from imgo_site.setting_values import convert, shown


def _setting(default: Any, help_text: str, items: type = str) -> Any:
    """Return a dataclass field with its text for the settings table.

    `items`: type of a list's items, `str` or `dict`. The environment has the latter as JSON, and
    so it has a setting that is a dictionary.
    """
    metadata = {"help": help_text, "items": items, "kind": type(default)}
    if isinstance(default, list | dict):
        metadata["default"] = default
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ImgoSettings:
    """All settings, typed. `field.metadata["help"]`: the text for the settings table."""

    # Listeners and files.
    HOST: str = _setting("127.0.0.1", "Address that all listeners bind to.")
    HTTP_PORT: int = _setting(8000, "HTTP, and WebSocket at `/sub`.")
    WS_PORT: int = _setting(
        8090, "The WebSocket port that clients of imgo (Go) expect; 0 turns it off."
    )
    TCP_PORT: int = _setting(8080, "Raw TCP; 0 turns it off.")
    DATA_DIR: str = _setting("./var", "Directory in which the embedded mode keeps its files.")
    NODE_NAME: str = _setting("", "Name of this node. Empty: the host name and the HTTP port.")
    NODE_ADDRESS: str = _setting(
        "",
        "Address at which clients reach only this node; `/goim/nodes/weighted` lists it. "
        "Empty: there is none, and the node is not listed.",
    )
    DEMO: str = _setting("auto", "Demo page at `/`: `on`, `off`, or `auto` (embedded mode only).")

    # Callers of the API.
    API_KEY: str = _setting("", "A bootstrap API key with every scope.")
    LEGACY_TRUSTED_NETWORKS: list[str] = _setting(
        [], "Networks (CIDR) whose callers need no API key on the paths of imgo (Go) and goim."
    )

    TRUSTED_PROXIES: list[str] = _setting(
        [], "Networks (CIDR) of your proxies. Their `X-Forwarded-For` gives the client's address."
    )
    PROXY_PROTOCOL: list[str] = _setting(
        [],
        "Listeners (`tcp`, `ws`, `http`) at which `TRUSTED_PROXIES` send the client's address "
        "with the PROXY protocol, version 1 or 2.",
    )

    # Authentication of sessions.
    AUTHENTICATOR: str = _setting(
        "accounts.identity.authenticate",
        "Dotted path of a coroutine function: returns the identity for an auth body and the "
        "facts of its connection.",
    )
    ROOM_AUTHORIZER: str = _setting(
        "accounts.identity.authorize_room",
        "Dotted path of a coroutine function: returns whether an identity may join a room. Its "
        "attribute `may_publish`, if it has one, decides who may "
        "[publish](../howto/publish.md#who-may-publish).",
    )
    RECEIVER: str = _setting(
        "push.receiver.default_receiver",
        "Dotted path of a coroutine function: answers upstream messages (op 4).",
    )
    AUTHENTICATE_URL: str = _setting(
        "",
        "URL of your backend that authenticates each session, instead of `AUTHENTICATOR`. See "
        "[hooks](../howto/hooks.md).",
    )
    AUTHORIZE_ROOM_URL: str = _setting(
        "",
        "URL of your backend that allows or forbids each join of a room, and publishing to it, "
        "instead of `ROOM_AUTHORIZER`.",
    )
    RECEIVE_URL: str = _setting(
        "", "URL of your backend that answers upstream messages (op 4), instead of `RECEIVER`."
    )
    HOOK_SECRETS: list[str] = _setting(
        [],
        "Secrets that sign the requests to these URLs, `whsec_` and base64. Give two while you "
        "replace one.",
    )
    HOOK_TIMEOUT: float = _setting(
        3.0, "Seconds for one answer of your backend, with the wait for a connection."
    )
    HOOK_CONNECTIONS: int = _setting(
        16, "Connections of a node to your backend, at most. They are kept open."
    )
    WEBHOOKS: list[dict[str, Any]] = _setting(
        [],
        "Endpoints of your backend that get events, each with `url`, `secret`, `events` and "
        "`keys`. In the environment as JSON. See [webhooks](../howto/webhooks.md).",
        items=dict,
    )
    WEBHOOK_TIMEOUT: float = _setting(
        10.0, "Seconds for one request to such an endpoint, with the connection and the answer."
    )
    WEBHOOKS_MAX: int = _setting(
        100_000, "Events that wait for these endpoints. Above that, new events are dropped."
    )
    WEBPUSH_PRIVATE_KEY: str = _setting(
        "",
        "Private key for Web Push, from `manage.py vapid`, or PEM text. Empty: no Web Push. See "
        "[devices](../howto/devices.md).",
    )
    WEBPUSH_SUBJECT: str = _setting(
        "",
        "Contact for push services, such as `mailto:push@example.com`. They write there before "
        "they block a server.",
    )
    WEBPUSH_HOSTS: list[str] = _setting(
        [
            "fcm.googleapis.com",
            "updates.push.services.mozilla.com",
            "*.push.apple.com",
            "*.notify.windows.com",
        ],
        "Hosts of push services that browsers may name, with `*` for any text. Others are refused.",
    )
    WEBPUSH_NETWORKS: list[str] = _setting(
        [],
        "Private networks (CIDR) in which a push service of your own may be. Without it, the "
        "server connects only to public addresses.",
    )
    APNS_KEY: str = _setting(
        "", "Key of Apple's push service, PEM text or a file's path. Empty: no APNs."
    )
    APNS_KEY_ID: str = _setting("", "Id of that key, 10 characters.")
    APNS_TEAM_ID: str = _setting("", "Id of your team at Apple, 10 characters.")
    APNS_TOPIC: str = _setting("", "Bundle id of your app.")
    APNS_SERVER: str = _setting(
        "https://api.push.apple.com",
        "Apple's server; `https://api.sandbox.push.apple.com` for builds of developers.",
    )
    FCM_CREDENTIALS: str = _setting(
        "",
        "Service account of your Firebase project, JSON or a file's path. Empty: no FCM.",
    )
    FCM_SERVER: str = _setting("https://fcm.googleapis.com", "Server of FCM HTTP v1.")
    DEVICES_PER_KEY: int = _setting(
        20, "Devices of one key. Above that, the least recently registered one is deleted."
    )
    NOTIFY_AFTER: float = _setting(
        15.0,
        "Seconds after which a push with `notify` is sent to devices, unless it names others.",
    )
    NOTIFY_TIMEOUT: float = _setting(
        10.0, "Seconds for one request to a provider, with the connection and the answer."
    )
    NOTIFY_CONCURRENCY: int = _setting(
        50, "Requests that a node has under way at one provider, at most."
    )
    NOTIFY_RATE: int = _setting(
        500, "Requests that a node sends to one provider in a second, at most."
    )
    NOTIFY_CA_FILE: str = _setting(
        "",
        "PEM file of further certificate authorities for the connections to providers, such as a "
        "proxy's or your own push service's.",
    )
    EVENT_KEYS: list[str] = _setting(
        [],
        "Patterns of the keys whose coming and going are events, such as `user-*`. See "
        "[online and offline](../howto/online.md).",
    )
    EVENT_ROOMS: list[str] = _setting(
        [],
        "Patterns of the rooms whose first and last session are events (`room.occupied`, "
        "`room.vacated`), such as `chat-*`. See [webhooks](../howto/webhooks.md).",
    )
    GOIM_TRUSTED: bool = _setting(
        False,
        "Accept goim's clients without a token, under the key they name. Only for a closed "
        "network.",
    )
    ROOMS: dict[str, Any] = _setting(
        {},
        'Policies of rooms by pattern, such as `{"chat-*": {"history": 100}}`. The first '
        "pattern that matches a room decides. In the environment as JSON. See "
        "[rooms](../howto/rooms.md#rooms-that-remember).",
    )
    ACK_SCOPE: dict[str, Any] = _setting(
        {},
        "Whose acknowledgement settles a message, by pattern of keys, such as "
        '`{"user-*": "each"}`: `any` for the first session of the key, `each` for every device. '
        "The first pattern that matches a key decides. In the environment as JSON. See "
        "[every device gets everything](../howto/every-device.md).",
    )
    DEVICES_MAX: int = _setting(
        10,
        "Devices of a key with the scope `each`. Above that, the least recently seen one is "
        "forgotten.",
    )
    DEVICE_TTL: int = _setting(
        90 * 86_400, "Time without a session after which such a device is forgotten, seconds."
    )
    STREAMS_MAX: int = _setting(
        1_000_000_000,
        "Bytes of the messages that all rooms with history keep together. Above that, the oldest "
        "are forgotten.",
    )
    STREAM_TAILS: int = _setting(
        64_000_000, "Bytes of a node's memory for the latest messages of rooms with history."
    )
    STREAMS_TRUST_FAILOVER: bool = _setting(
        False,
        "Positions in rooms with history stay valid when a standby of Postgres is promoted. Only "
        "for synchronous standbys, which lack no message.",
    )
    PRESENCE_GRACE: float = _setting(
        3.0,
        "Seconds that a key stays online, and in a room with presence, after its last session has "
        "left, so that a reload of a page is no event.",
    )
    PRESENCE_MAX: int = _setting(
        1_000, "Members of a room that are listed. Above that, clients get only their number."
    )
    PRESENCE_INFO_MAX: int = _setting(
        1_024, "Bytes of the `info` that an identity may show to others in a room, as JSON."
    )
    ROOMS_OPEN: bool = _setting(True, "Let an identity that lists no rooms join any room.")
    CORS_ORIGINS: list[str] = _setting(
        [],
        "Origins of other sites, such as `https://app.example.com`, whose pages may use "
        "`/sub/events`. `*`: all.",
    )
    SESSION_AUTH: bool = _setting(True, "Accept Django's session cookie from our own origin.")
    SESSION_KEY: str = _setting(
        "accounts.identity.user_key",
        "Dotted path of a function: returns the subscriber key of a Django user.",
    )
    AUTH_FAILURES: int = _setting(
        100,
        "Refused tokens of one address in a minute; further logins from there are slowed "
        "down. 0: no limit.",
    )
    JWT_SECRET: str = _setting("", "HS256 secret of JWTs (at least 32 bytes).")
    JWT_PUBLIC_KEY: str = _setting("", "RS256 public key of JWTs, PEM text or a file's path.")
    JWT_JWKS_FILE: str = _setting("", "A JWKS file with RS256 keys, chosen by `kid`.")
    JWT_ISSUER: str = _setting("", "Required `iss` of a JWT. Empty: any.")
    JWT_AUDIENCE: str = _setting(
        "", "Required `aud` of a JWT. Empty: a JWT with an `aud` is refused."
    )
    JWT_REQUIRE_EXP: bool = _setting(True, "Refuse a JWT without `exp`, which would never expire.")
    JWT_KEY_CLAIM: str = _setting("sub", "The claim that holds the subscriber key.")
    JWT_ROOMS_CLAIM: str = _setting("rooms", "The claim that lists the rooms the session may join.")
    JWT_JOIN_CLAIM: str = _setting(
        "join", "The claim that lists the rooms the session is in from the start."
    )
    JWT_INFO_CLAIM: str = _setting(
        "info", "The claim with what others in a room with presence see of the key, an object."
    )
    JWT_LEEWAY: int = _setting(
        5, "Tolerance for `exp`, `nbf` and `iat`, also for the end of the session, seconds."
    )

    # Sessions.
    HANDSHAKE_TIMEOUT: float = _setting(
        5.0,
        "Time from the connection to an open session, seconds. While the server waits for the "
        "client to read what it was sent, the time does not count. Also the time for the first "
        "line and the headers of an HTTP request.",
    )
    MAX_UNAUTHENTICATED: int = _setting(
        1_000,
        "Connections of a node that have not authenticated. At the limit the one that has "
        "waited longest is closed.",
    )
    HEARTBEAT_TIMEOUT: float = _setting(
        300.0, "Close a session that has sent no frame for this many seconds."
    )
    MAX_SESSIONS_PER_KEY: int = _setting(0, "Sessions of one key across all nodes. 0: no limit.")
    SESSION_CAP_POLICY: str = _setting(
        "refuse", "At that limit: `refuse` the new session, or `close_oldest`."
    )
    MAX_ROOMS_PER_SESSION: int = _setting(100, "Rooms that one session may be in at once.")
    MAX_CLIENT_BODY: int = _setting(
        1024, "Largest body of a client's frame, bytes. The default is imgo (Go)'s."
    )
    MAX_AUTH_BODY: int = _setting(
        8192,
        "Largest body of a client's first frame, which may name many rooms, and of frames that "
        "renew a token. Bytes.",
    )
    SESSION_BYTES: int = _setting(
        1024 * 1024,
        "Unsent bytes that one session may have. Above that, it is closed as a slow reader.",
    )
    SLOW_READER_TIMEOUT: float = _setting(
        10.0, "Close a session whose client has not read for this many seconds."
    )
    TCP_FRAME_GAP: float = _setting(
        0.005,
        "Pause between two writes to a raw-TCP session that authenticated with a bare token, "
        "seconds. The Java client of imgo (Go) expects one frame in each read. 0: no pause.",
    )
    MAX_FRAMES_PER_SECOND: int = _setting(
        100,
        "Frames read from one client in a second, with pings and fragments. The rest is read "
        "in the next second.",
    )
    MAX_PUBLISHES_PER_SECOND: int = _setting(
        10,
        "Messages that the clients of one key may publish to rooms in a second, through one node. "
        "Further ones are refused. 0: no limit.",
    )
    BATCH_MAX: int = _setting(40, "Messages of a busy room in one write, at most.")
    BATCH_WINDOW: float = _setting(0.02, "Longest delay of a message of a busy room, seconds.")

    # Pushing.
    MAX_BODY: int = _setting(64 * 1024, "Largest body of a push, bytes.")
    MAX_KEYS: int = _setting(10_000, "Keys in one push.")
    MAX_PUSHES: int = _setting(1_000, "Pushes in one array.")
    MAX_REQUEST: int = _setting(16 * 1024 * 1024, "Largest body of an API request, bytes.")
    MAX_FORM: int = _setting(
        1024 * 1024,
        "Largest body of a request to any other view, bytes. Raise it if your views accept "
        "uploads.",
    )
    MAX_STRAY_BODY: int = _setting(
        8 * 1024, "Largest body of a request to a path or method that expects none, bytes."
    )
    MAX_BODIES: int = _setting(
        64 * 1024 * 1024,
        "Bytes of request bodies that a node holds at once. Above that, requests get a 503.",
    )
    MAX_HEADERS: int = _setting(100, "Header fields of one request.")
    BODY_TIMEOUT: float = _setting(
        5.0,
        "Time for the body of a request to arrive: `BODY_TIMEOUT + arrived / BODY_RATE` seconds, "
        "with the bytes that have arrived so far.",
    )
    BODY_RATE: int = _setting(
        16 * 1024, "Slowest rate at which a large body may arrive, bytes a second. See above."
    )
    STREAM_LINE_TIMEOUT: float = _setting(
        10.0, "Time for one line of a stream of pushes to be complete, seconds."
    )
    STREAM_IDLE_TIMEOUT: float = _setting(
        3_600.0, "End a stream of pushes in which nothing arrives for this many seconds."
    )
    DEDUPE_WINDOW: int = _setting(86_400, "Time for which a `dedupe_id` is remembered, seconds.")
    PARTITIONS: int = _setting(
        4,
        "Queues over which keys and rooms are spread. `manage.py workers` runs a worker for each.",
    )

    # Offline messages.
    TTL: int = _setting(
        86_400, "Lifetime of a pending message, seconds, unless the push names one."
    )
    LIVE_TTL: int = _setting(
        300,
        "Lifetime of a push to a room or everyone, seconds, unless the push names one. A push that "
        "was not fanned out by then is dropped.",
    )
    MAX_TTL: int = _setting(30 * 86_400, "Longest lifetime that a push may name, seconds.")
    MAX_DELAY: int = _setting(
        30 * 86_400, "Latest time that `send_at` of a push may name, seconds from now."
    )
    OFFLINE_MAX: int = _setting(
        1_000,
        "Pending messages that are kept for one key, and with the scope `each` for one device of "
        "it. Above that, the oldest are dropped.",
    )
    RECORD_KEEP: int = _setting(
        86_400,
        "Time for which the record of a push is kept, seconds. It is kept at least for the "
        "push's lifetime.",
    )
    REPLAY_PAGE: int = _setting(200, "Pending messages that are read from the database at a time.")

    # Internals.
    LOADER_WINDOW: float = _setting(
        0.002,
        "A node waits this many seconds for more logins, and looks all of them up in one query.",
    )
    DATABASE_TIMEOUT: float = _setting(
        5.0,
        "Longest wait for one answer of Postgres, in a push or a look-up, seconds. At most a day.",
    )
    DATABASE_THREADS: int = _setting(
        2,
        "Database connections of a node for each of three groups of work: logins, sessions, and "
        "cluster jobs. So a node has up to three times as many, beside the pool.",
    )
    REPLICA_DATABASE: str = _setting(
        "",
        "Alias in `DATABASES` of a [standby](../howto/postgres-failover.md) of Postgres. The "
        "dashboard, `explain` and the admin's lists are read from it. Empty: from the primary.",
    )
    REPLICA_LAG_MAX: float = _setting(
        15.0,
        "A standby whose last replayed transaction is older than this is not read, seconds.",
    )
    GROUP_LINGER: float = _setting(
        5.0, "Pause before a node leaves a group without sessions, seconds."
    )
    NODE_LEASE: float = _setting(
        30.0, "A node that has not renewed its lease for this many seconds counts as dead."
    )
    DRAIN_SECONDS: float = _setting(
        5.0, "Time over which a stopping node spreads the closing of its sessions, seconds."
    )
    REVALIDATE_INTERVAL: float = _setting(
        30.0, "Seconds between two checks of the token or login of each session. 0: never."
    )
    SWEEP_AFTER: float = _setting(
        5.0, "Age at which a node fans out a message itself, because its task was lost, seconds."
    )
    AUDIT_INTERVAL: float = _setting(
        60.0,
        "Interval in which a node looks once for pending messages of each of its connected keys, "
        "and delivers those that it missed, seconds.",
    )
    CANARY_INTERVAL: float = _setting(
        10.0,
        "Seconds between two canaries, test tasks that show whether a worker takes tasks. A "
        "worker that misses three is reported, and restarted by `manage.py workers`.",
    )
    WORKER_METRICS_PORT: int = _setting(
        0,
        "Port at which `manage.py workers` serves `/metrics` and `/readyz` for its workers. "
        "0: none.",
    )
    LISTEN_BACKLOG: int = _setting(4096, "Connections the kernel may queue for a listener.")
    REUSE_PORT: bool = _setting(
        False,
        "Share the ports with other nodes of the machine. `manage.py imgo --processes` sets it.",
    )


def given() -> Mapping[Any, Any]:
    """Return the `IMGO` dictionary of Django's settings.

    Raises `ImproperlyConfigured` if it is no dictionary.
    """
    dictionary = getattr(settings, "IMGO", {})
    if not isinstance(dictionary, Mapping):
        raise ImproperlyConfigured(
            f"IMGO={shown(dictionary)} must be a dictionary, such as IMGO = {{'TCP_PORT': 0}}."
        )
    return dictionary


def known_names() -> set[str]:
    """Return the names of all settings."""
    return {item.name for item in fields(ImgoSettings)}


def load() -> ImgoSettings:
    """Read all settings. Raises `ImproperlyConfigured` if one is invalid."""
    dictionary = given()
    values = {}
    for item in fields(ImgoSettings):
        raw: Any = os.environ.get(f"IMGO_{item.name}", "")
        if not raw.strip():
            raw = dictionary.get(item.name)
        if raw is not None:
            values[item.name] = convert(
                item.name, raw, item.metadata["kind"], item.metadata["items"]
            )
    return ImgoSettings(**values)


class _Conf:
    """Cache of the settings: read on first use, kept until Django's `setting_changed`."""

    def __init__(self) -> None:
        self._loaded: ImgoSettings | None = None

    def __getattr__(self, name: str) -> Any:
        if self._loaded is None:
            self._loaded = load()
        value = getattr(self._loaded, name)
        # Kept on the object itself: the next read is a plain attribute access.
        self.__dict__[name] = value
        return value

    def reset(self) -> None:
        """Drop the cached settings."""
        self.__dict__.clear()
        self._loaded = None


_conf = _Conf()
conf = cast(ImgoSettings, _conf)


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == "IMGO":
        _conf.reset()


setting_changed.connect(_on_setting_changed)


def markdown_table() -> str:
    """Return the table of settings in docs/reference/settings.md."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for item in fields(ImgoSettings):
        default = item.metadata["default"] if item.default is MISSING else item.default
        if isinstance(default, list):
            default = ", ".join(default)
        text = f"`{default}`" if default not in ("", {}) else ""
        lines.append(f"| `{item.name}` | {text} | {item.metadata['help']} |")
    return "\n".join(lines)
