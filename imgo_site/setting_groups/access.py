"""Settings of listeners, callers of the API, and who may do what: hooks, tokens, devices, rooms."""

from dataclasses import dataclass
from typing import Any

from imgo_site.setting_groups.fields import setting


@dataclass(frozen=True)
class AccessSettings:
    """Who reaches the server, and what each of them may see and do."""

    # Listeners and files.
    HOST: str = setting("127.0.0.1", "Address that all listeners bind to.")
    HTTP_PORT: int = setting(8000, "HTTP, and WebSocket at `/sub`.")
    WS_PORT: int = setting(
        8090, "The WebSocket port that clients of imgo (Go) expect; 0 turns it off."
    )
    TCP_PORT: int = setting(8080, "Raw TCP; 0 turns it off.")
    DATA_DIR: str = setting("./var", "Directory in which the embedded mode keeps its files.")
    NODE_NAME: str = setting("", "Name of this node. Empty: the host name and the HTTP port.")
    NODE_ADDRESS: str = setting(
        "",
        "Address at which clients reach only this node; `/goim/nodes/weighted` lists it. "
        "Empty: there is none, and the node is not listed.",
    )
    DEMO: str = setting("auto", "Demo page at `/`: `on`, `off`, or `auto` (embedded mode only).")

    # Callers of the API.
    API_KEY: str = setting("", "A bootstrap API key with every scope.")
    LEGACY_TRUSTED_NETWORKS: list[str] = setting(
        [], "Networks (CIDR) whose callers need no API key on the paths of imgo (Go) and goim."
    )

    TRUSTED_PROXIES: list[str] = setting(
        [], "Networks (CIDR) of your proxies. Their `X-Forwarded-For` gives the client's address."
    )
    PROXY_PROTOCOL: list[str] = setting(
        [],
        "Listeners (`tcp`, `ws`, `http`) at which `TRUSTED_PROXIES` send the client's address "
        "with the PROXY protocol, version 1 or 2.",
    )

    # Authentication of sessions.
    AUTHENTICATOR: str = setting(
        "accounts.identity.authenticate",
        "Dotted path of a coroutine function: returns the identity for an auth body and the "
        "facts of its connection.",
    )
    ROOM_AUTHORIZER: str = setting(
        "accounts.identity.authorize_room",
        "Dotted path of a coroutine function: returns whether an identity may join a room. Its "
        "attribute `may_publish`, if it has one, decides who may "
        "[publish](../howto/publish.md#who-may-publish).",
    )
    RECEIVER: str = setting(
        "push.receiver.default_receiver",
        "Dotted path of a coroutine function: answers upstream messages (op 4).",
    )
    AUTHENTICATE_URL: str = setting(
        "",
        "URL of your backend that authenticates each session, instead of `AUTHENTICATOR`. See "
        "[hooks](../howto/hooks.md).",
    )
    AUTHORIZE_ROOM_URL: str = setting(
        "",
        "URL of your backend that allows or forbids each join of a room, and publishing to it, "
        "instead of `ROOM_AUTHORIZER`.",
    )
    RECEIVE_URL: str = setting(
        "", "URL of your backend that answers upstream messages (op 4), instead of `RECEIVER`."
    )
    HOOK_SECRETS: list[str] = setting(
        [],
        "Secrets that sign the requests to these URLs, `whsec_` and base64. Give two while you "
        "replace one.",
    )
    HOOK_TIMEOUT: float = setting(
        3.0, "Seconds for one answer of your backend, with the wait for a connection."
    )
    HOOK_CONNECTIONS: int = setting(
        16, "Connections of a node to your backend, at most. They are kept open."
    )
    WEBHOOKS: list[dict[str, Any]] = setting(
        [],
        "Endpoints of your backend that get events, each with `url`, `secret`, `events` and "
        "`keys`. In the environment as JSON. See [webhooks](../howto/webhooks.md).",
        items=dict,
    )
    WEBHOOK_TIMEOUT: float = setting(
        10.0, "Seconds for one request to such an endpoint, with the connection and the answer."
    )
    WEBHOOKS_MAX: int = setting(
        100_000, "Events that wait for these endpoints. Above that, new events are dropped."
    )
    WEBPUSH_PRIVATE_KEY: str = setting(
        "",
        "Private key for Web Push, from `manage.py vapid`, or PEM text. Empty: no Web Push. See "
        "[devices](../howto/devices.md).",
    )
    WEBPUSH_SUBJECT: str = setting(
        "",
        "Contact for push services, such as `mailto:push@example.com`. They write there before "
        "they block a server.",
    )
    WEBPUSH_HOSTS: list[str] = setting(
        [
            "fcm.googleapis.com",
            "updates.push.services.mozilla.com",
            "*.push.apple.com",
            "*.notify.windows.com",
        ],
        "Hosts of push services that browsers may name, with `*` for any text. Others are refused.",
    )
    WEBPUSH_NETWORKS: list[str] = setting(
        [],
        "Private networks (CIDR) in which a push service of your own may be. Without it, the "
        "server connects only to public addresses.",
    )
    APNS_KEY: str = setting(
        "", "Key of Apple's push service, PEM text or a file's path. Empty: no APNs."
    )
    APNS_KEY_ID: str = setting("", "Id of that key, 10 characters.")
    APNS_TEAM_ID: str = setting("", "Id of your team at Apple, 10 characters.")
    APNS_TOPIC: str = setting("", "Bundle id of your app.")
    APNS_SERVER: str = setting(
        "https://api.push.apple.com",
        "Apple's server; `https://api.sandbox.push.apple.com` for builds of developers.",
    )
    FCM_CREDENTIALS: str = setting(
        "",
        "Service account of your Firebase project, JSON or a file's path. Empty: no FCM.",
    )
    FCM_SERVER: str = setting("https://fcm.googleapis.com", "Server of FCM HTTP v1.")
    DEVICES_PER_KEY: int = setting(
        20, "Devices of one key. Above that, the least recently registered one is deleted."
    )
    NOTIFY_AFTER: float = setting(
        15.0,
        "Seconds after which a push with `notify` is sent to devices, unless it names others.",
    )
    NOTIFY_TIMEOUT: float = setting(
        10.0, "Seconds for one request to a provider, with the connection and the answer."
    )
    NOTIFY_CONCURRENCY: int = setting(
        50, "Requests that a node has under way at one provider, at most."
    )
    NOTIFY_RATE: int = setting(
        500, "Requests that a node sends to one provider in a second, at most."
    )
    NOTIFY_CA_FILE: str = setting(
        "",
        "PEM file of further certificate authorities for the connections to providers, such as a "
        "proxy's or your own push service's.",
    )
    EVENT_KEYS: list[str] = setting(
        [],
        "Patterns of the keys whose coming and going are events, such as `user-*`. See "
        "[online and offline](../howto/online.md).",
    )
    EVENT_ROOMS: list[str] = setting(
        [],
        "Patterns of the rooms whose first and last session are events (`room.occupied`, "
        "`room.vacated`), such as `chat-*`. See [webhooks](../howto/webhooks.md).",
    )
    GOIM_TRUSTED: bool = setting(
        False,
        "Accept goim's clients without a token, under the key they name. Only for a closed "
        "network.",
    )
    ROOMS: dict[str, Any] = setting(
        {},
        'Policies of rooms by pattern, such as `{"chat-*": {"history": 100}}`. The first '
        "pattern that matches a room decides. In the environment as JSON. See "
        "[rooms](../howto/rooms.md#rooms-that-remember).",
    )
    STREAMS_MAX: int = setting(
        1_000_000_000,
        "Bytes of the messages that all rooms with history keep together. Above that, the oldest "
        "are forgotten.",
    )
    STREAM_TAILS: int = setting(
        64_000_000, "Bytes of a node's memory for the latest messages of rooms with history."
    )
    STREAMS_TRUST_FAILOVER: bool = setting(
        False,
        "Positions in rooms with history stay valid when a standby of Postgres is promoted. Only "
        "for synchronous standbys, which lack no message.",
    )
    PRESENCE_GRACE: float = setting(
        3.0,
        "Seconds that a key stays online, and in a room with presence, after its last session has "
        "left, so that a reload of a page is no event.",
    )
    PRESENCE_MAX: int = setting(
        1_000, "Members of a room that are listed. Above that, clients get only their number."
    )
    PRESENCE_INFO_MAX: int = setting(
        1_024, "Bytes of the `info` that an identity may show to others in a room, as JSON."
    )
    ACK_SCOPE: dict[str, Any] = setting(
        {},
        "Whose acknowledgement settles a message, by pattern of keys, such as "
        '`{"user-*": "each"}`: `any` for the first session of the key, `each` for every device. '
        "The first pattern that matches a key decides. In the environment as JSON. See "
        "[every device gets everything](../howto/every-device.md).",
    )
    DEVICES_MAX: int = setting(
        10,
        "Devices of a key with the scope `each`. Above that, the least recently seen one is "
        "forgotten.",
    )
    DEVICE_TTL: int = setting(
        90 * 86_400, "Time without a session after which such a device is forgotten, seconds."
    )
    ROOMS_OPEN: bool = setting(True, "Let an identity that lists no rooms join any room.")
    CORS_ORIGINS: list[str] = setting(
        [],
        "Origins of other sites, such as `https://app.example.com`, whose pages may use "
        "`/sub/events`. `*`: all.",
    )
    SESSION_AUTH: bool = setting(True, "Accept Django's session cookie from our own origin.")
    SESSION_KEY: str = setting(
        "accounts.identity.user_key",
        "Dotted path of a function: returns the subscriber key of a Django user.",
    )
    AUTH_FAILURES: int = setting(
        100,
        "Refused tokens of one address in a minute; further logins from there are slowed "
        "down. 0: no limit.",
    )
    JWT_SECRET: str = setting("", "HS256 secret of JWTs (at least 32 bytes).")
    JWT_PUBLIC_KEY: str = setting("", "RS256 public key of JWTs, PEM text or a file's path.")
    JWT_JWKS_FILE: str = setting("", "A JWKS file with RS256 keys, chosen by `kid`.")
    JWT_ISSUER: str = setting("", "Required `iss` of a JWT. Empty: any.")
    JWT_AUDIENCE: str = setting(
        "", "Required `aud` of a JWT. Empty: a JWT with an `aud` is refused."
    )
    JWT_REQUIRE_EXP: bool = setting(True, "Refuse a JWT without `exp`, which would never expire.")
    JWT_KEY_CLAIM: str = setting("sub", "The claim that holds the subscriber key.")
    JWT_ROOMS_CLAIM: str = setting("rooms", "The claim that lists the rooms the session may join.")
    JWT_JOIN_CLAIM: str = setting(
        "join", "The claim that lists the rooms the session is in from the start."
    )
    JWT_INFO_CLAIM: str = setting(
        "info", "The claim with what others in a room with presence see of the key, an object."
    )
    JWT_LEEWAY: int = setting(
        5, "Tolerance for `exp`, `nbf` and `iat`, also for the end of the session, seconds."
    )
