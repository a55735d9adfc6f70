"""Types of the API's answers. mypy checks the views against them.

The schema at /api/schema/ is generated from them, with their docstrings.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

UNKNOWN_TYPE: Literal["urn:imgo:outcome_unknown"] = "urn:imgo:outcome_unknown"

Count = Annotated[int, Meta(ge=0)]


class Problem(TypedDict):
    """What is wrong: problem details (RFC 9457)."""

    type: Annotated[
        Literal["about:blank", "urn:imgo:outcome_unknown"],
        Meta(description="`outcome_unknown`: the push may be accepted or not."),
    ]
    title: str
    status: Annotated[int, Meta(description="The HTTP status, again.")]
    code: Annotated[str, Meta(description="For programs: bad_request, not_found, ...")]
    detail: Annotated[str, Meta(description="For people.")]
    retry: Annotated[bool, Meta(description="Whether the same call may succeed later.")]


class Accepted(TypedDict):
    """A push that was accepted: stored, if it is to be stored."""

    id: Annotated[str, Meta(description="The message's id.", pattern="^[0-9]+$")]


class Refused(TypedDict):
    """One push of several that was not accepted, and why."""

    error: Problem


class SentTo(TypedDict):
    """A session that it was sent to."""

    session: str
    at: datetime


class NotifiedOn(TypedDict):
    """A notification to one device of the key, or its closing, and what the provider answered."""

    device: Annotated[str, Meta(description="The device's id.")]
    at: datetime
    provider_id: NotRequired[Annotated[str, Meta(description="The provider's name of it.")]]
    reason: NotRequired[Annotated[str, Meta(description="Why the provider has not taken it.")]]


class DeliveryState(TypedDict):
    """What became of a delivery."""

    state: Annotated[
        Literal["pending", "acknowledged", "expired", "dropped", "live", "scheduled"],
        Meta(
            description="`live`: it was not to be stored, so nothing more is known. `scheduled`: "
            "it is not due yet."
        ),
    ]
    at: Annotated[datetime | None, Meta(description="Since when.")]
    session: NotRequired[Annotated[str, Meta(description="The session that settled it.")]]
    how: NotRequired[
        Annotated[
            Literal["client", "kernel"],
            Meta(description="Acknowledged by the client, or by the kernel for one that cannot."),
        ]
    ]
    reason: NotRequired[Annotated[str, Meta(description="Why it was dropped.")]]
    sent: list[SentTo]


class DeviceDelivery(DeliveryState):
    """What became of a push for one device of a key with the scope `each`."""

    device: Annotated[
        str, Meta(description="Its name; empty for all clients of the key that give none.")
    ]


class DeliveryRecord(DeliveryState):
    """What became of a push for one key.

    With the scope `each`, it is pending as long as it is pending for a device.
    """

    key: str
    notified: NotRequired[list[NotifiedOn]]
    closed: NotRequired[
        Annotated[
            list[NotifiedOn],
            Meta(description="Where its notification was closed: it was read or cancelled."),
        ]
    ]
    devices: NotRequired[
        Annotated[
            list[DeviceDelivery],
            Meta(description="For each device, if the key has named devices."),
        ]
    ]


class FanOut(TypedDict):
    """Whether it was sent to who is connected."""

    state: Literal["done", "waiting", "parked", "scheduled"]
    partitions: NotRequired[Annotated[list[int], Meta(description="Where it waits.")]]
    error: NotRequired[Annotated[str, Meta(description="Why it could not be sent.")]]


class Totals(TypedDict, total=False):
    """Keys of a stored push by state; empty when it was not stored."""

    acknowledged: Count
    pending: Count
    expired: Count
    dropped: Count


class Written(TypedDict):
    """To how many sessions of how many nodes a push to a room or to all was written so far."""

    sessions: Count
    nodes: Count


From = TypedDict(
    "From",
    {"from": NotRequired[Annotated[str, Meta(description="Key of the client that published it.")]]},
)


class PushRecord(From):
    """What became of a push. A push to keys has `totals`, `count` and a page of `results`."""

    id: str
    target: Literal["keys", "room", "all"]
    by: Annotated[str, Meta(description="Who pushed it.")]
    by_name: Annotated[str, Meta(description="The same for people: its API key's name.")]
    op: int
    stored: bool
    created_at: datetime
    expires_at: datetime
    fan_out: FanOut
    scheduled_id: NotRequired[
        Annotated[str, Meta(description="The id that a push with `send_at` was answered with.")]
    ]
    send_at: NotRequired[Annotated[datetime, Meta(description="When it is due, or was.")]]
    cancelled_at: NotRequired[datetime]
    dropped: NotRequired[
        Annotated[
            Literal["replaced", "stale"],
            Meta(description="Why a push to a room, or a scheduled one, was dropped."),
        ]
    ]
    collapse_key: NotRequired[str]
    version: NotRequired[int]
    exclude: NotRequired[Annotated[list[str], Meta(description="Sessions that do not get it.")]]
    room: NotRequired[str]
    written: NotRequired[Written]
    totals: NotRequired[Totals]
    count: NotRequired[Annotated[int, Meta(ge=0, description="Keys in all.")]]
    results: NotRequired[list[DeliveryRecord]]


class Cancelled(TypedDict):
    """What the cancellation of a push has reached. Repeated, it is the same."""

    id: Annotated[str, Meta(description="The message's id.")]
    state: Annotated[
        Literal["cancelled", "partly", "too_late"],
        Meta(description="`partly`: for some of its keys it came too late."),
    ]
    cancelled: Annotated[int, Meta(ge=0, description="Keys for which it is cancelled.")]
    too_late: Annotated[
        int, Meta(ge=0, description="Keys that had it before, or for which it had ended.")
    ]


class SessionRow(TypedDict):
    """One open session."""

    id: str
    node: Annotated[str, Meta(description="The node that holds it.")]
    transport: str
    address: str
    platform: str
    since: datetime


class SessionEventRow(TypedDict):
    """The last opening, refusal or closing of a session of a key."""

    at: datetime
    node: Annotated[str, Meta(description="The name of the node.")]
    transport: str
    address: str
    platform: NotRequired[str]
    session: NotRequired[Annotated[str, Meta(description="Its id; a refusal has none.")]]
    code: NotRequired[
        Annotated[int, Meta(description="The close code; missing when the client has gone.")]
    ]
    reason: NotRequired[str]
    seconds: NotRequired[Annotated[float, Meta(description="How long it was open.")]]


class KeyDeviceRow(TypedDict):
    """A device of a key with the scope `each`."""

    device: Annotated[
        str, Meta(description="Its name; empty for all clients of the key that give none.")
    ]
    pending: Annotated[int, Meta(ge=0, description="Messages that it has not acknowledged.")]
    created_at: datetime
    seen_at: Annotated[datetime, Meta(description="When it was known to be connected.")]


class KeyState(TypedDict):
    """A key: its sessions, its last events, and how many messages are pending for it.

    `last_seen` is when it last had a session: now, if it has one. It is known of keys in EVENT_KEYS
    for a year, of others for RECORD_KEEP; then it is null. `opened`, `refused` and `closed` are
    null when there was none within RECORD_KEEP. With the scope `each`, a message is pending once
    for each device that has not acknowledged it.
    """

    key: str
    online: bool
    last_seen: datetime | None
    sessions: list[SessionRow]
    pending: Count
    unacknowledged: Annotated[
        int, Meta(ge=0, description="Of those, how many were sent to a session already.")
    ]
    opened: SessionEventRow | None
    refused: SessionEventRow | None
    closed: SessionEventRow | None
    devices: NotRequired[
        Annotated[
            list[KeyDeviceRow],
            Meta(description="Of a key with the scope `each`: its devices, seen last first."),
        ]
    ]


class DeviceRow(TypedDict):
    """A device that gets notifications. Its address is a secret, and shortened."""

    id: str
    provider: str
    address: str
    name: str
    created_at: datetime
    last_seen: Annotated[datetime, Meta(description="Its latest registration.")]
    failures: Annotated[
        Count, Meta(description="Notifications since the last success that were refused.")
    ]


class DevicePage(TypedDict):
    """A page of the devices of a key, the most recently registered first."""

    count: Count
    results: list[DeviceRow]


class Deleted(TypedDict):
    """How many devices were deleted."""

    deleted: Count


class Closed(TypedDict):
    """How many sessions are being closed."""

    closed: Count


class NodeRow(TypedDict):
    """One live node."""

    id: str
    number: Annotated[int, Meta(description="The server id of imgo (Go).")]
    name: str
    since: datetime
    sessions: Count
    draining: Annotated[bool, Meta(description="It takes no more sessions.")]


class NodePage(TypedDict):
    """The live nodes."""

    count: Count
    results: list[NodeRow]


class HookRow(TypedDict):
    """A hook that has a URL: the calls of all live nodes since each started."""

    hook: str
    calls: Annotated[int, Meta(ge=0, description="Without those of clients that disconnected.")]
    failures: Annotated[
        dict[str, int], Meta(description="By outcome, as in the metric `imgo_hook_calls_total`.")
    ]
    mean_ms: Annotated[
        float | None, Meta(description="Of the answered calls, with the wait for a connection.")
    ]
    open_on: Annotated[
        list[str],
        Meta(description="Nodes that call it only now and then, because it kept failing."),
    ]


class Stats(TypedDict):
    """Totals of the whole installation, now. Figures of hooks are some seconds old."""

    nodes: Count
    sessions: Count
    rooms: Count
    hooks: list[HookRow]


class TokenRow(TypedDict):
    """A token, without its text."""

    key: str
    rooms: Annotated[
        list[str] | None, Meta(description="Rooms and `*` patterns; null: the default.")
    ]
    join: Annotated[list[str], Meta(description="Rooms that its sessions are in from the start.")]
    info: Annotated[
        dict[str, Any], Meta(description="What others in a room with presence see of the key.")
    ]
    created_at: datetime
    expires_at: Annotated[datetime | None, Meta(description="null: never.")]


class NewToken(TokenRow):
    """A token that was just made, with its text."""

    token: Annotated[str, Meta(description="The text. It is in this answer alone.")]


class TokenPage(TypedDict):
    """A page of the tokens."""

    count: Annotated[int, Meta(ge=0, description="Tokens in all.")]
    results: list[TokenRow]


class Health(TypedDict):
    """Whether this process serves."""

    status: Literal["ok", "starting", "draining", "stopping"]


class Readiness(TypedDict):
    """Whether this process can do its job, and what was found."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: Annotated[
        dict[str, str], Meta(description="database, layer, workers, outbox: `ok`, or what is not.")
    ]
