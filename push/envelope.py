"""What crosses the channel layer: a message for a group, or an order to close sessions.

The layer serialises with msgpack, so an envelope is a dict of plain values; `group` is in it
because the layer does not say which group a message came through.
"""

from typing import Any, TypedDict

from offline.models import Message

MESSAGE = "imgo.message"
CLOSE = "imgo.close"


class Envelope(TypedDict, total=False):
    """One of the two. `sessions` empty: all sessions of the group."""

    type: str
    group: str
    # MESSAGE
    id: int
    op: int
    body: bytes
    is_json: bool
    key: str  # whose pending row this delivery settles; "" when nothing is pending
    # CLOSE
    sessions: list[str]
    code: int
    reason: str


def message_envelope(group: str, message: Message, key: str = "") -> Envelope:
    """A message on its way to `group`; `key` names the pending row that it settles, if any."""
    return Envelope(
        type=MESSAGE,
        group=group,
        id=message.pk,
        op=message.op,
        body=bytes(message.body),
        is_json=message.is_json,
        key=key,
    )


def close_envelope(group: str, sessions: list[str], code: int, reason: str = "") -> Envelope:
    """An order to close these sessions of `group`, or all of them when none is named."""
    return Envelope(type=CLOSE, group=group, sessions=sessions, code=code, reason=reason)


def as_layer_message(envelope: Envelope) -> dict[str, Any]:
    """The dict for `group_send`."""
    return dict(envelope)
