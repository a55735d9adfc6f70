"""Envelopes, the dicts that cross the channel layer: a message for a group, an order, an echo.

The layer serialises with msgpack, so an envelope contains only plain values. It contains `group`
because the layer does not report the group that a message was sent to.
"""

from typing import Any, TypedDict

from offline.models import Message
from offline.values import OutboxMessage
from push.wire import CloseCode, Frame, Op

MESSAGE = "imgo.message"
RETRACTION = "imgo.retraction"  # a message whose frame only some sessions get
CLOSE = "imgo.close"
ECHO = "imgo.echo"
DRAIN = "imgo.drain"
FRAME = "imgo.frame"
UNDRAIN = "imgo.undrain"
READ = "imgo.read"  # a report to the other devices of a key


class Envelope(TypedDict, total=False):
    """Envelope of one of the eight types. `sessions`: session ids; empty for all of the group."""

    type: str
    group: str
    # MESSAGE, RETRACTION
    id: int
    op: int
    body: bytes
    is_json: bool
    key: str  # the key whose pending row this delivery settles; "" if nothing is pending
    spread: float  # seconds over which a message to everyone is spread; absent: at once
    ensure: bool  # a full buffer delays the message instead of dropping it
    at: float  # time of acceptance by the database's clock: Unix time, seconds
    trace: str  # the traceparent of its fan-out; absent if that is not traced
    room: str  # of a message to a room; absent from processes of earlier versions
    epoch: str  # of a message that is kept in its room's stream: its place there
    offset: int
    sender: str  # key of the client that has published it; absent for other pushes
    collapse: str  # its collapse key; absent for none
    # Ids of the sessions that do not get it, separated by commas; absent for none.
    exclude: str
    drain: list[int]  # the partition it was sent from, and the generation of that drain
    # ECHO
    sent: float  # time of sending by the clock of the node's event loop: seconds
    # CLOSE
    sessions: list[str]
    code: int
    reason: str
    # FRAME: `op` and `body` of a client's frame, as of a message; `key`: that of the session
    session: str
    ver: int
    seq: int
    # READ: `body` of the frame
    device: str  # the device of the key that has read messages


def message_envelope(
    group: str, message: Message | OutboxMessage, key: str = "", trace: str = ""
) -> Envelope:
    """Return the envelope of a message to `group`.

    `key`: the key whose pending row the delivery settles; "" if nothing is pending.
    `trace`: the traceparent of the fan-out; "" if it is not traced.
    """
    envelope = Envelope(
        type=MESSAGE,
        group=group,
        id=message.pk,
        op=message.op,
        body=bytes(message.body),
        is_json=message.is_json,
        key=key,
        ensure=message.ensure,
        at=message.created_at.timestamp(),
    )
    if message.op == Op.RETRACTION:
        envelope["type"] = RETRACTION
        del envelope["at"]  # it is no delivery
    if message.room:
        envelope["room"] = message.room
    if message.sender:
        envelope["sender"] = message.sender
    if message.collapse_key:
        envelope["collapse"] = message.collapse_key
    if trace:
        envelope["trace"] = trace
    return envelope


def close_envelope(group: str, sessions: list[str], code: int, reason: str = "") -> Envelope:
    """Return an order to close these sessions of `group`; an empty list means all."""
    return Envelope(type=CLOSE, group=group, sessions=sessions, code=code, reason=reason)


def frame_envelope(group: str, session: str, key: str, frame: Frame) -> Envelope:
    """Return a frame that a client has sent to its session at a node.

    `key`: the client's, which was verified.
    """
    return Envelope(
        type=FRAME,
        group=group,
        session=session,
        key=key,
        ver=frame.ver,
        op=frame.op,
        seq=frame.seq,
        body=frame.body,
    )


def echo_envelope(group: str, sent: float) -> Envelope:
    """Return an echo, which a node sends to itself to check that the layer delivers."""
    return Envelope(type=ECHO, group=group, sent=sent)


def drain_envelope(group: str) -> Envelope:
    """Return an order to a node to accept no more sessions and close its own."""
    return Envelope(type=DRAIN, group=group)


def read_envelope(group: str, device: str, body: bytes) -> Envelope:
    """Return a report that a device has read messages, for the other devices of its key.

    `body`: of the frame, JSON.
    """
    return Envelope(type=READ, group=group, device=device, body=body)


def undrain_envelope(group: str) -> Envelope:
    """Return an order to a drained node to accept sessions again."""
    return Envelope(type=UNDRAIN, group=group)


_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    MESSAGE: {"id": int, "op": int, "body": bytes, "is_json": bool, "key": str},
    CLOSE: {"sessions": list, "code": int, "reason": str},
    ECHO: {"sent": (int, float)},
    DRAIN: {},
    FRAME: {"session": str, "key": str, "ver": int, "op": int, "seq": int, "body": bytes},
    UNDRAIN: {},
    READ: {"device": str, "body": bytes},
}
_FIELDS[RETRACTION] = _FIELDS[MESSAGE]
_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "spread": (int, float),
    "ensure": bool,
    "at": (int, float),
    "trace": str,
    "room": str,
    "epoch": str,
    "offset": int,
    "sender": str,
    "exclude": str,
    "collapse": str,
}
INT32_MAX = 2**31 - 1
CLOSE_CODES = frozenset(map(int, CloseCode))


def fault_of(message: Any) -> str:
    """Return the fault of a message received through the layer; "" for a valid envelope.

    Received messages need this check: any client with write access to the layer's Redis can
    publish arbitrary data.
    """
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}"
    kind = message.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        return f"unknown type {kind!r}"
    for name, expected in {"group": str, **fields}.items():
        if not isinstance(message.get(name), expected):
            return name
    if kind == CLOSE and message["code"] not in CLOSE_CODES:
        return f"code {message['code']}"
    return _fault_of_message(message) if kind in (MESSAGE, RETRACTION) else ""


def _fault_of_message(message: dict[str, Any]) -> str:
    for name, expected in _OPTIONS.items():
        if name in message and not isinstance(message[name], expected):
            return name
    drain = message.get("drain", [0, 0])
    if not isinstance(drain, (list, tuple)) or [type(n) for n in drain] != [int, int]:
        return "drain"
    if "offset" in message and not (
        0 < message["offset"] < 2**63 and message.get("epoch") and message.get("room")
    ):
        return "offset"
    return "" if 0 <= message["op"] <= INT32_MAX and 0 <= message["id"] < 2**63 else "op or id"


def as_layer_message(envelope: Envelope) -> dict[str, Any]:
    """Return the dict for `group_send`."""
    return dict(envelope)
