"""Types of the API's answers, as `Publisher` returns them. Times are texts: RFC 3339, in UTC.

They are dictionaries. A newer server may add members.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class SentTo(TypedDict):
    """A session that a message was sent to."""

    session: str
    at: str


class _NotifiedOn(TypedDict):
    device: str
    at: str


class NotifiedOn(_NotifiedOn, total=False):
    """A notification to one device of a key, or its closing.

    `reason`: why the provider has not taken it.
    """

    provider_id: str
    reason: str


class _DeliveryRecord(TypedDict):
    key: str
    state: Literal["pending", "acknowledged", "expired", "dropped", "live", "scheduled"]
    at: str | None
    sent: list[SentTo]


class _DeviceDelivery(TypedDict):
    device: str
    state: Literal["pending", "acknowledged", "expired", "dropped", "live", "scheduled"]
    at: str | None
    sent: list[SentTo]


class DeviceDelivery(_DeviceDelivery, total=False):
    """What became of a push for one device of a key with the scope `each`.

    `device`: its name, "" for all clients of the key that give none.
    """

    session: str
    how: Literal["client", "kernel"]
    reason: str


class DeliveryRecord(_DeliveryRecord, total=False):
    """What became of a push for one key. `at`: since when. `reason`: why it was dropped.

    `devices`: for each device, if the key has named devices. The key is pending as long as one is.
    """

    session: str
    how: Literal["client", "kernel"]
    reason: str
    notified: list[NotifiedOn]
    closed: list[NotifiedOn]
    devices: list[DeviceDelivery]


class _FanOut(TypedDict):
    state: Literal["done", "waiting", "parked", "scheduled"]


class FanOut(_FanOut, total=False):
    """Whether a push was sent to connected sessions. `error`: why it could not be."""

    partitions: list[int]
    error: str


class Totals(TypedDict, total=False):
    """Numbers of keys of a stored push, by state."""

    acknowledged: int
    pending: int
    expired: int
    dropped: int


class Written(TypedDict):
    """To how many sessions of how many nodes a push to a room or to all was written so far."""

    sessions: int
    nodes: int


class _PushRecord(TypedDict):
    id: str
    target: Literal["keys", "room", "all"]
    by: str
    by_name: str
    op: int
    stored: bool
    created_at: str
    expires_at: str
    fan_out: FanOut


# "from" is a word of Python's. `from`: key of the client that has published it; missing otherwise.
_From = TypedDict("_From", {"from": str}, total=False)


class PushRecord(_PushRecord, _From, total=False):
    """What became of a push. A push to keys has `totals`, `count` and a page of `results`.

    A push that was scheduled has `send_at`, and its message the `scheduled_id` that was answered.
    """

    scheduled_id: str
    send_at: str
    cancelled_at: str
    exclude: list[str]
    collapse_key: str
    version: int
    dropped: Literal["replaced", "stale"]
    room: str
    written: Written
    totals: Totals
    count: int
    results: list[DeliveryRecord]


class Cancelled(TypedDict):
    """What the cancellation of a push has reached. `id`: the message's. The numbers are of keys."""

    id: str
    state: Literal["cancelled", "partly", "too_late"]
    cancelled: int
    too_late: int


class DeviceRow(TypedDict):
    """One device that gets notifications. `address`: shortened, because it is a secret."""

    id: str
    provider: str
    address: str
    name: str
    created_at: str
    last_seen: str
    failures: int


class DevicePage(TypedDict):
    """A page of the devices of a key, the most recently registered first."""

    count: int
    results: list[DeviceRow]


class SessionRow(TypedDict):
    """One open session."""

    id: str
    node: str
    transport: str
    address: str
    platform: str
    since: str


class _SessionEventRow(TypedDict):
    at: str
    node: str
    transport: str
    address: str


class SessionEventRow(_SessionEventRow, total=False):
    """The last opening, refusal or closing of a session of a key. `seconds`: how long it lasted."""

    platform: str
    session: str
    code: int
    reason: str
    seconds: float


class KeyDeviceRow(TypedDict):
    """A device of a key with the scope `each`. `seen_at`: when it was known to be connected.

    `device`: its name, "" for all clients of the key that give none. `pending`: messages that it
    has not acknowledged.
    """

    device: str
    pending: int
    created_at: str
    seen_at: str


class _KeyState(TypedDict):
    key: str
    online: bool
    last_seen: str | None
    sessions: list[SessionRow]
    pending: int
    unacknowledged: int
    opened: SessionEventRow | None
    refused: SessionEventRow | None
    closed: SessionEventRow | None


class KeyState(_KeyState, total=False):
    """A key: its sessions, its last events, and its numbers of messages.

    `last_seen`: when it last had a session; now, if it has one; None if that is not known.
    `pending`: messages that wait. `unacknowledged`: those of them that were sent to a session.
    `devices`: those of a key with the scope `each`, for each of which a message is pending.
    """

    devices: list[KeyDeviceRow]


class Closed(TypedDict):
    """How many sessions are being closed."""

    closed: int


class RoomRow(TypedDict):
    """One room, and how many sessions are in it."""

    room: str
    sessions: int


class RoomPage(TypedDict):
    """A page of the rooms. `count`: rooms in all."""

    count: int
    results: list[RoomRow]


class _MemberRow(TypedDict):
    key: str


class MemberRow(_MemberRow, total=False):
    """One session in a room; in a room with presence, one key with its info."""

    session: str
    info: dict[str, Any]


class _MemberPage(TypedDict):
    room: str
    sessions: int
    count: int
    results: list[MemberRow]


class MemberPage(_MemberPage, total=False):
    """A room, and a page of the sessions in it; of the keys in it, if it has presence.

    `sessions`: sessions in all. `count`: rows in all. `version`: of who is in a room with presence.
    `settling`: the server's Redis has lost its data, and keys may be missing yet.
    """

    version: str
    settling: bool


class PositionState(TypedDict):
    """PositionState of a room with history."""

    room: str
    epoch: str
    offset: int


class KeptRow(_From):
    """One kept message of a room. `at`: when it got its offset, Unix time in seconds."""

    offset: int
    id: str
    op: int
    at: float
    body: Any


class KeptPage(TypedDict):
    """Kept messages of a room. `offset`: that of its newest one. `more`: further ones match."""

    room: str
    epoch: str
    offset: int
    more: bool
    messages: list[KeptRow]


class NodeRow(TypedDict):
    """One live node. `draining`: it takes no more sessions."""

    id: str
    number: int
    name: str
    since: str
    sessions: int
    draining: bool


class NodePage(TypedDict):
    """The live nodes."""

    count: int
    results: list[NodeRow]


class HookRow(TypedDict):
    """A hook that has a URL: the calls of all live nodes since each started.

    `failures`: by outcome. `mean_ms`: of the answered calls. `open_on`: the nodes that call it only
    now and then, because it kept failing.
    """

    hook: str
    calls: int
    failures: dict[str, int]
    mean_ms: float | None
    open_on: list[str]


class Stats(TypedDict):
    """Totals of the whole installation."""

    nodes: int
    sessions: int
    rooms: int
    hooks: list[HookRow]


class TokenRow(TypedDict):
    """A token, without its text.

    `rooms`: names and `*` patterns; None: the server's default. `expires_at`: None: never.
    `info`: what others in a room with presence see of the key.
    """

    key: str
    rooms: list[str] | None
    join: list[str]
    info: dict[str, Any]
    created_at: str
    expires_at: str | None


class NewToken(TokenRow):
    """A token that was just made. `token`: its text, which is in this answer only."""

    token: str


class TokenPage(TypedDict):
    """A page of the tokens. `count`: tokens in all."""

    count: int
    results: list[TokenRow]
