"""What crosses the channel layer: a message for a group, an order, an echo.

The layer serialises with msgpack, so an envelope is a dict of plain values; `group` is in it
because the layer does not say which group a message came through.
"""

from typing import Any, TypedDict

from offline.models import Message
from push.wire import CloseCode

MESSAGE = "imgo.message"
CLOSE = "imgo.close"
ECHO = "imgo.echo"
DRAIN = "imgo.drain"
UNDRAIN = "imgo.undrain"


class Envelope(TypedDict, total=False):
    """One of the five. `sessions` empty: all sessions of the group."""

    type: str
    group: str
    # MESSAGE
    id: int
    op: int
    body: bytes
    is_json: bool
    key: str  # whose pending row this delivery settles; "" when nothing is pending
    spread: float  # seconds over which a message to everyone is spread; absent: at once
    ensure: bool  # it waits for room instead of being dropped
    at: float  # when it was accepted, by the database's clock: Unix time, seconds
    trace: str  # the traceparent of its fan-out, when that is traced
    drain: list[int]  # the partition it was sent from, and the generation of that drain
    # ECHO
    sent: float  # when it was sent, by the clock of the node's event loop: seconds
    # CLOSE
    sessions: list[str]
    code: int
    reason: str


def message_envelope(group: str, message: Message, key: str = "", trace: str = "") -> Envelope:
    """A message on its way to `group`; `key` names the pending row that it settles, if any."""
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
    if trace:
        envelope["trace"] = trace
    return envelope


def close_envelope(group: str, sessions: list[str], code: int, reason: str = "") -> Envelope:
    """An order to close these sessions of `group`, or all of them when none is named."""
    return Envelope(type=CLOSE, group=group, sessions=sessions, code=code, reason=reason)


def echo_envelope(group: str, sent: float) -> Envelope:
    """What a node sends to itself, to know that the layer still carries."""
    return Envelope(type=ECHO, group=group, sent=sent)


def drain_envelope(group: str) -> Envelope:
    """An order to a node, to take no more sessions and close those it has."""
    return Envelope(type=DRAIN, group=group)


def undrain_envelope(group: str) -> Envelope:
    """An order to a drained node, to take sessions again."""
    return Envelope(type=UNDRAIN, group=group)


_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    MESSAGE: {"id": int, "op": int, "body": bytes, "is_json": bool, "key": str},
    CLOSE: {"sessions": list, "code": int, "reason": str},
    ECHO: {"sent": (int, float)},
    DRAIN: {},
    UNDRAIN: {},
}
_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "spread": (int, float),
    "ensure": bool,
    "at": (int, float),
    "trace": str,
}
INT32_MAX = 2**31 - 1
CLOSE_CODES = frozenset(map(int, CloseCode))


def fault_of(message: Any) -> str:
    """Return what is wrong with a message that came through the layer; "" for an envelope.

    Anybody who may write to the layer's Redis can publish anything.
    """
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}"
    kind = message.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        return f"unknown type {kind!r}"
    for name, wanted in {"group": str, **fields}.items():
        if not isinstance(message.get(name), wanted):
            return name
    if kind == CLOSE and message["code"] not in CLOSE_CODES:
        return f"code {message['code']}"
    return _fault_of_message(message) if kind == MESSAGE else ""


def _fault_of_message(message: dict[str, Any]) -> str:
    for name, wanted in _OPTIONS.items():
        if name in message and not isinstance(message[name], wanted):
            return name
    drain = message.get("drain", [0, 0])
    if not isinstance(drain, (list, tuple)) or [type(n) for n in drain] != [int, int]:
        return "drain"
    return "" if 0 <= message["op"] <= INT32_MAX and 0 <= message["id"] < 2**63 else "op or id"


def as_layer_message(envelope: Envelope) -> dict[str, Any]:
    """The dict for `group_send`."""
    return dict(envelope)
