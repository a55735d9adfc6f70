"""What a session is and does, without any I/O: that is its link's."""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Protocol

from push.wire import (
    FIRST_OWN_OP,
    CloseCode,
    Op,
    disconnect_body,
    encode_binary,
    encode_raw,
    encode_text,
    encode_text_batch,
    json_body,
)


class Kind(IntEnum):
    """How a session's frames travel."""

    TCP = 0
    BINARY = 1  # WebSocket, binary messages
    TEXT = 2  # WebSocket, text messages

    @property
    def transport(self) -> str:
        """The word for people: tcp or websocket."""
        return "tcp" if self is Kind.TCP else "websocket"


class Link(Protocol):
    """The way out to one client. It can be replaced without touching the session."""

    wraps: bool  # whether `wrap` changes a payload
    session: "Session | None"  # whose `sent` it calls

    @property
    def waiting(self) -> int:
        """Bytes that the kernel has not taken yet."""

    def wrap(self, payload: bytes, is_text: bool) -> bytes:
        """The bytes that carry one message on this transport, for `write`."""

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Send `data` after what was written before; never blocks, never raises.

        Once the kernel has it all, the link calls `session.sent(receipt)`, if that is not 0.
        """

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        """The first `sent` bytes of `data` were given to the socket directly: take over."""

    def open_short_way(self) -> None:
        """Set `session.send`, if the link has a socket and nothing is waiting."""

    def close(self, code: int, reason: str) -> None:
        """Send what was written before, then close."""

    async def drained(self) -> None:
        """Return when nothing is waiting, or when the link is closed."""


class Reading(Protocol):
    """A reading of the database that tells exactly what it saw."""

    def sees(self, xmin: int) -> bool:
        """Return whether it saw a row that has this `xmin`."""


class Keeper(Protocol):
    """What sessions need of their node."""

    unacknowledged_max: int  # ids that a session remembers

    def delivered(self, message_id: int, session: "Session") -> None:
        """The kernel has taken a stored message for a session."""

    def deliver_late(self, session: "Session", message: "Outgoing") -> None:
        """Find out whether a message that the replay has overtaken is still to be sent."""

    def audience(self, session: "Session") -> int:
        """How many sessions are in the room of one of goim's clients."""


PACKET_KINDS = 18  # of each `Kind`; without an id, with one, or in op 9; wrapped or not
TRANSPORTS = {"tcp": (Kind.TCP,), "websocket": (Kind.BINARY, Kind.TEXT)}

# Frames with messages that this process has written, by kind of packet: plain numbers, because
# they are counted where a microsecond is much. Only the event loop's thread counts.
frames_written = [0] * PACKET_KINDS
# The messages in them, but for the dashboard's own pictures, once for each session: one number.
deliveries = [0]


class Outgoing:
    """One message on its way out: encoded at most once for each kind of packet there is."""

    __slots__ = ("_body", "_is_json", "at", "ensure", "id", "key", "op", "packets", "span")

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
    ) -> None:
        self.id = id
        self.op = op
        self.at = at  # when it was accepted: Unix time, seconds; 0 when that is of no interest
        self.key = key  # whose pending row it settles; "" when nothing is pending
        self.ensure = ensure  # it waits for room instead of being dropped
        self._body = body
        self._is_json = is_json
        self.packets: list[bytes | None] = [None] * PACKET_KINDS
        self.span: Any = None  # of its delivery, when that is traced

    def packet_for(self, session: "Session") -> bytes:
        """The bytes for this session, which it shares with all of its kind."""
        packet = self.packets[session.packet_kind]
        if packet is None:
            packet = session.link.wrap(self.payload_for(session), session.kind is Kind.TEXT)
            self.packets[session.packet_kind] = packet
        return packet

    def payload_for(self, session: "Session") -> bytes:
        """What the packet carries."""
        frame = self.frame_for(session)
        return encode_raw([frame]) if session.gets_raw else frame

    def frame_for(self, session: "Session") -> bytes:
        """The frame in the session's kind."""
        ver, message_id = (2, self.id) if session.acks else (1, 0)
        if session.kind is Kind.TEXT:
            body = json_body(self._body, self._is_json)
            return encode_text(self.op, 0, body, ver, message_id)
        return encode_binary(self.op, 0, self._body, ver, message_id)

    def __len__(self) -> int:
        """Bytes of the body."""
        return len(self._body)


class Batch(Outgoing):
    """Several messages on their way out together: one packet carries them all."""

    __slots__ = ("_messages",)

    def __init__(self, messages: list[Outgoing]) -> None:
        super().__init__(0, 0, b"", True)
        self._messages = messages

    def payload_for(self, session: "Session") -> bytes:
        """An array of all, one RAW frame around all, or, on TCP, one frame after the other."""
        frames = [message.frame_for(session) for message in self._messages]
        if session.kind is Kind.TEXT:
            return encode_text_batch(frames)
        return b"".join(frames) if session.kind is Kind.TCP else encode_raw(frames)

    def __len__(self) -> int:
        """Bytes of the bodies."""
        return sum(map(len, self._messages))


class Session:
    """One connected, authenticated client.

    Between `hold` and `release` what is delivered waits: the session has joined its groups and
    is being sent what was pending. `release` lets it go, without what the replay already sent.
    """

    __slots__ = (
        "__weakref__",
        "_held",
        "_keeper",
        "_last_replayed",
        "_replayed",
        "_room_to_hold",
        "accepts",
        "acks",
        "change_room",
        "close_code",
        "expires_at",
        "id",
        "identity",
        "is_behind",
        "is_closed",
        "is_connecting",
        "is_goim",
        "joined",
        "key",
        "kind",
        "last_seen",
        "link",
        "opened",
        "packet_kind",
        "rooms",
        "send",
        "snapshot",
        "unacknowledged",
        "was_opened",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the word everywhere else
        identity: Any,
        kind: Kind,
        link: Link,
        keeper: Keeper,
        *,
        acks: bool = False,
        accepts: Iterable[int] | None = None,
        is_goim: bool = False,
    ) -> None:
        self.id = id
        self.identity = identity
        self.key: str = identity.key
        self.expires_at: float | None = identity.expires_at  # Unix time, seconds
        self.kind = kind
        self.link = link
        self._keeper = keeper
        self.acks = acks  # it acknowledges with op 22; others by reading
        # The own ops that it takes, as goim's clients name them; None: all there are.
        self.accepts = None if accepts is None else shared(accepts)
        # goim's client, which gets goim's bodies of replies; JSON frames have no form for them.
        self.is_goim = is_goim and kind is not Kind.TEXT
        # Which of the packets of a message is this session's: see PACKET_KINDS.
        self.packet_kind = kind + 3 * (acks or 2 * self.gets_raw) + 9 * link.wraps
        self.rooms: set[str] = set()
        self.change_room = ""  # the one that op 12 leaves
        self.last_seen = 0.0  # monotonic seconds of the last frame
        self.opened = 0.0  # Unix time, seconds
        # Monotonic seconds of the first reading of what is pending: what was had by then is not
        # for this session; 0 before it.
        self.joined = 0.0
        self.snapshot: Reading | None = None  # that reading, if it found anything
        self.is_connecting = False  # it reads what is pending itself
        self.is_behind = False  # and has to read it again
        self.is_closed = False
        self.was_opened = False  # its auth frame has been answered
        self.close_code = 0  # why the server closed it; 0 when the client has gone
        # The socket's own, while a message may be given to it directly: see `write_to_all`.
        self.send: Callable[[bytes], int] | None = None
        # Ids of stored messages that it was sent, the oldest first, if it acknowledges at all.
        self.unacknowledged: dict[int, None] | None = None
        self._held: list[Outgoing] | None = None
        self._room_to_hold = 0
        self._replayed: set[int] | None = None
        self._last_replayed = 0

    @property
    def gets_raw(self) -> bool:
        """Whether a message by itself comes in op 9 too: goim's clients may know no other way."""
        return self.is_goim and self.kind is Kind.BINARY and not self.acks

    def takes(self, op: int) -> bool:
        """Whether messages with this op are for it; those with one of the protocol's all are."""
        return self.accepts is None or op < FIRST_OWN_OP or op in self.accepts

    def deliver(self, message: Outgoing) -> None:
        """Write a live message, or hold it while the replay is under way."""
        if self._held is not None:
            self._held.append(message)
            self._room_to_hold -= len(message)
            if self._room_to_hold < 0:
                self._held.clear()
                self.disconnect(CloseCode.SLOW_READER)
        elif self._replayed is None or not message.key or message.id > self._last_replayed:
            self._write(message)
        elif message.id not in self._replayed:
            # Another session of the key had it before this one came, and then it would be out of
            # order here; or it was stored only after what is pending was read.
            self._keeper.deliver_late(self, message)

    def replay(self, message: Outgoing) -> None:
        """Write a message that was pending, and remember that it was sent."""
        if self._replayed is None:
            self._replayed = set()
        if message.id not in self._replayed:
            self._replayed.add(message.id)
            self._last_replayed = max(message.id, self._last_replayed)
            if not message.at:  # a live one, which was kept back, was counted as it came
                deliveries[0] += 1
            self._write(message)

    def _write(self, message: Outgoing) -> None:
        frames_written[self.packet_kind] += 1
        if self.acks and message.key:
            self.expect_acknowledgement(message.id)
        self.link.write(message.packet_for(self), message.id if message.key else 0)

    def expect_acknowledgement(self, message_id: int) -> None:
        """Note that a session that acknowledges is sent a stored message."""
        if self.unacknowledged is None:
            self.unacknowledged = {}
        self.unacknowledged[message_id] = None
        if len(self.unacknowledged) > self._keeper.unacknowledged_max:
            del self.unacknowledged[next(iter(self.unacknowledged))]

    def awaits(self, message_id: int) -> bool:
        """Return whether the message was sent to it and is not acknowledged yet."""
        return self.unacknowledged is not None and message_id in self.unacknowledged

    def take_acknowledged(self, message_id: int) -> bool:
        """Return whether the message was sent and not acknowledged yet; from now on it is."""
        if self.unacknowledged is None or message_id not in self.unacknowledged:
            return False
        del self.unacknowledged[message_id]
        if not self.unacknowledged:
            self.unacknowledged = None
        return True

    def joined_before(self, at: float, xmin: int | None) -> bool:
        """Return whether it joined before another session of its key had a message.

        Joining is the first reading of what is pending. `at`: when the other had it, monotonic
        seconds. That may be late by what a busy machine takes to store an event, and clients come
        back sooner. `xmin`: of the event, if it is stored. An event that the reading saw is from
        before it, whatever the time says.
        """
        is_seen = xmin is not None and self.snapshot is not None and self.snapshot.sees(xmin)
        return at >= self.joined and not is_seen

    def sent(self, message_id: int) -> None:
        """The kernel has taken the message, which is how a session without ids acknowledges."""
        self._keeper.delivered(message_id, self)

    def hold(self, limit: int) -> None:
        """Keep live messages back until `release`; over `limit` bytes the session is closed."""
        self._held = []
        self._room_to_hold = limit

    def replay_held(self, below: int) -> None:
        """Write the held messages for the key with ids below `below`, in order of id."""
        if not self._held:
            return
        early = [one for one in self._held if one.key and one.id < below]
        if early:
            self._held = [one for one in self._held if not one.key or one.id >= below]
            for message in sorted(early, key=lambda one: one.id):
                self.replay(message)

    def release(self) -> None:
        """Write what was kept back, except what the replay has sent.

        It came for this session, so it is written even if another session of the key has
        acknowledged it meanwhile. What the replay has overtaken is looked at one by one.
        """
        held, self._held = self._held or [], None
        for message in held:
            self.deliver(message)
        self.link.open_short_way()

    @property
    def is_held(self) -> bool:
        """Whether it is between `hold` and `release`."""
        return self._held is not None

    @property
    def is_replaying(self) -> bool:
        """Whether live messages have to be looked at one by one."""
        return self._held is not None or self._replayed is not None

    def forget_replayed(self) -> None:
        """Stop looking for live copies of replayed messages: none can come any more."""
        if self._replayed is not None and self._held is None:
            self._replayed = None
            self.link.open_short_way()

    def reply(self, op: Op, seq: int, body: bytes = b"", ver: int = 1) -> None:
        """Answer a frame; `body` is JSON or empty."""
        self.link.write(encode_reply(self.link, self.kind, op, seq, body=body, ver=ver))

    def beat(self, seq: int, ver: int) -> None:
        """Answer a heartbeat; goim's clients are told how many are in their room."""
        body = self._keeper.audience(self).to_bytes(4) if self.is_goim else b""
        self.link.write(
            encode_reply(self.link, self.kind, Op.HEARTBEAT_REPLY, seq, body=body, ver=ver)
        )

    def disconnect(self, code: CloseCode, reason: str = "") -> None:
        """Say why with op 6, then close. Further calls do nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.close_code = code
            body = disconnect_body(code, reason)
            self.link.write(encode_reply(self.link, self.kind, Op.DISCONNECT, 0, body=body))
            self.link.close(code, reason or code.reason)


_shared: dict[frozenset[int], frozenset[int]] = {}
SHARED_MAX = 1_000


def shared(ops: Iterable[int]) -> frozenset[int]:
    """These ops as one set for all sessions that name the same: there are few, and many of them."""
    wanted = frozenset(ops)
    if len(_shared) >= SHARED_MAX:
        _shared.clear()
    return _shared.setdefault(wanted, wanted)


def encode_reply(
    link: Link, kind: Kind, op: Op, seq: int, *, body: bytes = b"", ver: int = 1
) -> bytes:
    """One frame of a session of this kind, for its link; `body` in text is JSON or empty."""
    if kind is Kind.TEXT:
        return link.wrap(encode_text(op, seq, body, ver), True)
    return link.wrap(encode_binary(op, seq, body, ver), False)
