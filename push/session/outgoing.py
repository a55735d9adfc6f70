"""An outgoing message, and the packets that sessions of one kind share.

A message is encoded once for each kind of packet, however many sessions get it.
"""

from collections.abc import Sequence
from enum import IntEnum
from json import loads
from typing import Any, NewType, Protocol

from push.session.event_ids import event_id
from push.wire import (
    encode_binary,
    encode_event,
    encode_raw,
    encode_room_binary,
    encode_room_text,
    encode_text,
    encode_text_batch,
    json_body,
)


class Kind(IntEnum):
    """Encoding of a session's frames."""

    TCP = 0
    BINARY = 1  # WebSocket, binary messages
    TEXT = 2  # WebSocket, text messages
    EVENTS = 3  # Server-Sent Events, the objects of text messages

    @property
    def transport(self) -> str:
        """Return the transport's name: tcp, websocket or sse."""
        return _TRANSPORT_OF[self]

    @property
    def is_json(self) -> bool:
        """Return whether the bodies of its frames are JSON."""
        return self in (Kind.TEXT, Kind.EVENTS)


_TRANSPORT_OF = {
    Kind.TCP: "tcp",
    Kind.BINARY: "websocket",
    Kind.TEXT: "websocket",
    Kind.EVENTS: "sse",
}


# Index of one of the packets of a message: see `packet_kind_of`.
PacketKind = NewType("PacketKind", int)
# 3 kinds × 5 forms × (wrapped or not). The forms: without an id, with an id, in op 9; and the
# first two with the room's name and offset, on messages to rooms. Behind them two for events:
# without an event's id, and with the id of a place in a stream.
PACKET_KINDS = 32
FORM_PLAIN, FORM_ID, FORM_RAW, FORM_ROOM, FORM_ROOM_ID = range(5)
EVENT, EVENT_WITH_ID = PacketKind(30), PacketKind(31)
EVENT_NAME = b"imgo"  # the type of events that are no messages
TRANSPORTS = {"tcp": (Kind.TCP,), "websocket": (Kind.BINARY, Kind.TEXT), "sse": (Kind.EVENTS,)}


class Wrapper(Protocol):
    """The part of a link that a packet needs."""

    wraps: bool  # whether `wrap` changes a payload

    def wrap(self, payload: bytes, is_text: bool) -> bytes:
        """Return the bytes of one message on this transport, for `write`."""


class Receiver(Protocol):
    """The part of a session that a packet needs."""

    acks: bool
    kind: Kind
    names: bool
    packet_kind: PacketKind

    @property
    def gets_raw(self) -> bool:
        """Return whether even single messages are sent in op 9."""

    @property
    def link(self) -> Wrapper:
        """Return the session's link."""


def packet_kinds_of(kind: Kind) -> range:
    """Return the packet kinds of all sessions of a kind."""
    return range(EVENT, PACKET_KINDS) if kind is Kind.EVENTS else range(kind, EVENT, 3)


def packet_kind_of(
    kind: Kind,
    *,
    acks: bool,
    names: bool,
    gets_raw: bool,
    wraps: bool,
    has_event_ids: bool = False,
) -> PacketKind:
    """Return which packet of a message a session gets.

    `acks`: its frames have an id (version 2). `names`: its frames of rooms have the room's name.
    `gets_raw`: its messages come in op 9, which excludes the other two. `wraps`: its link frames
    the payload. `has_event_ids`: its events carry the ids of places in a stream.
    """
    if kind is Kind.EVENTS:  # which always have the message's id and its room's name
        return EVENT_WITH_ID if has_event_ids else EVENT
    if gets_raw:
        form = FORM_RAW
    elif names:
        form = FORM_ROOM_ID if acks else FORM_ROOM
    else:
        form = FORM_ID if acks else FORM_PLAIN
    return PacketKind(kind + 3 * form + 15 * wraps)


class OutgoingMessage:
    """One message for delivery, encoded at most once for each kind of packet."""

    __slots__ = (
        "_body",
        "_is_json",
        "at",
        "collapse_key",
        "ensure",
        "epoch",
        "exclude",
        "id",
        "key",
        "offset",
        "op",
        "packets",
        "room",
        "seen",
        "sender",
        "span",
    )

    def __init__(
        self,
        id: int,  # noqa: A002 - the word everywhere else
        op: int,
        body: bytes,
        is_json: bool,
        key: str = "",
        *,
        ensure: bool = False,
        at: float = 0.0,
        room: str = "",
        offset: int = 0,
        epoch: str = "",
        seen: float = 0.0,
        sender: str = "",
        exclude: frozenset[str] = frozenset(),
        collapse_key: str = "",
    ) -> None:
        self.id = id
        self.op = op
        self.at = at  # time of acceptance: Unix time, seconds; 0 if delivery is not measured
        self.key = key  # the key whose pending row it settles; "" if nothing is pending
        self.room = room  # "" if it is not to a room, or from a process of an earlier version
        self.offset = offset  # in the room's stream; 0 if it is not kept
        self.epoch = epoch  # of that offset
        # When a message with an offset reached this process, by the database's clock: Unix time.
        self.seen = seen
        self.sender = sender  # key of the client that has published it; "" for other pushes
        self.exclude = exclude  # ids of the sessions here that do not get it
        self.collapse_key = collapse_key  # "" for none
        self.ensure = ensure  # a full buffer delays the message instead of dropping it
        self._body = body
        self._is_json = is_json
        self.packets: list[bytes | None] = [None] * PACKET_KINDS
        self.span: Any = None  # the span of its delivery; None if that is not traced

    def packet_for(self, session: Receiver) -> bytes:
        """Return the bytes for this session; sessions with the same kind of packet share them."""
        packet = self.packets[session.packet_kind]
        if packet is None:
            packet = session.link.wrap(self.payload_for(session), session.kind is Kind.TEXT)
            self.packets[session.packet_kind] = packet
        return packet

    def payload_for(self, session: Receiver) -> bytes:
        """Return the payload of the packet: a frame, in op 9 for some of goim's clients."""
        frame = self.frame_for(session)
        return encode_raw([frame]) if session.gets_raw else frame

    def frame_for(self, session: Receiver) -> bytes:
        """Return the frame in the session's encoding."""
        if session.kind is Kind.EVENTS:
            return self._event_for(session)
        if session.names and self.room:
            return self._frame_of_room(session)
        ver, message_id = (2, self.id) if session.acks else (1, 0)
        if session.kind is Kind.TEXT:
            body = json_body(self._body, self._is_json)
            return encode_text(self.op, 0, body, ver, message_id)
        return encode_binary(self.op, 0, self._body, ver, message_id)

    def _frame_of_room(self, session: Receiver) -> bytes:
        if session.kind is Kind.TEXT:
            return self._text_of_room()
        return encode_room_binary(
            self.op, self._body, self.id, self.room, self.offset, sender=self.sender
        )

    def _text_of_room(self) -> bytes:
        body = json_body(self._body, self._is_json)
        return encode_room_text(self.op, body, self.id, self.room, self.offset, sender=self.sender)

    def _event_for(self, session: Receiver) -> bytes:
        if self.room:
            frame = self._text_of_room()
        else:
            body = json_body(self._body, self._is_json)
            frame = encode_text(self.op, 0, body, 2 if self.id else 1, self.id)
        if session.packet_kind == EVENT_WITH_ID and self.offset:
            return encode_event(frame, id=event_id(self.room, self.epoch, self.offset, self.seen))
        return encode_event(frame)

    @property
    def body(self) -> bytes:
        """Return the body as it was pushed."""
        return self._body

    @property
    def is_tombstone(self) -> bool:
        """Return whether it only keeps its offset: the message was replaced or cancelled."""
        return bool(self.offset) and not self._body

    def __len__(self) -> int:
        """Return the number of bytes of the body."""
        return len(self._body)


class Notice(OutgoingMessage):
    """A frame for many sessions that is no message, such as a diff of presence.

    Each gets it as it gets replies. `body`: JSON. `room`: the one that it is about.
    """

    __slots__ = ()

    def __init__(self, op: int, body: bytes, room: str) -> None:
        super().__init__(0, op, body, is_json=True, room=room)

    def payload_for(self, session: Receiver) -> bytes:
        """Return the frame, which never comes in op 9."""
        if session.kind is Kind.EVENTS:
            return encode_event(encode_text(self.op, 0, self._body), name=EVENT_NAME)
        if session.kind is Kind.TEXT:
            return encode_text(self.op, 0, self._body)
        return encode_binary(self.op, 0, self._body)


class Retraction(OutgoingMessage):
    """A message that tells sessions which ask for it to take others back (op 30).

    It has an id, for its place among the others, which no frame carries. `body`: JSON.
    """

    __slots__ = ()

    def payload_for(self, session: Receiver) -> bytes:
        """Return the frame, which never comes in op 9 by itself."""
        return self.frame_for(session)

    def frame_for(self, session: Receiver) -> bytes:
        """Return the frame in the session's encoding."""
        if session.kind is Kind.EVENTS:
            return encode_event(encode_text(self.op, 0, self._body), name=EVENT_NAME)
        if session.kind is Kind.TEXT:
            return encode_text(self.op, 0, self._body)
        return encode_binary(self.op, 0, self._body)


def retracted_ids(retraction: OutgoingMessage) -> set[int]:
    """Return the ids of the messages that are taken back. Raises for a malformed body."""
    return {int(text) for text in loads(retraction.body)["ids"]}


class Batch(OutgoingMessage):
    """Several messages of one group for delivery in one packet."""

    __slots__ = ("_messages",)

    def __init__(self, messages: list[OutgoingMessage]) -> None:
        super().__init__(0, 0, b"", True, room=messages[0].room)
        self._messages = messages

    def payload_for(self, session: Receiver) -> bytes:
        """Return all messages: a JSON array, a RAW frame, or consecutive frames or events."""
        frames = [message.frame_for(session) for message in self._messages]
        if session.kind is Kind.TEXT:
            return encode_text_batch(frames)
        is_stream = session.kind in (Kind.TCP, Kind.EVENTS)
        return b"".join(frames) if is_stream else encode_raw(frames)

    def __len__(self) -> int:
        """Return the number of bytes of the bodies."""
        return sum(map(len, self._messages))


class Run:
    """Consecutive kept messages of a room, for sessions that recover them.

    `messages`: without tombstones. `last`: the highest offset, that of a tombstone included.
    """

    __slots__ = ("_packets", "last", "messages")

    def __init__(self, messages: Sequence[OutgoingMessage], last: int) -> None:
        self.messages = messages
        self.last = last
        self._packets: dict[PacketKind, bytes] = {}

    def packets_for(self, session: Receiver) -> bytes:
        """Return the packets of all messages, joined for a link with `joins_packets`.

        Sessions with the same kind of packet share them.
        """
        joined = self._packets.get(session.packet_kind)
        if joined is None:
            joined = b"".join([message.packet_for(session) for message in self.messages])
            self._packets[session.packet_kind] = joined
        return joined
