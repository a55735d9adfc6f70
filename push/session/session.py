"""The session, without I/O; a link does the I/O."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from push.session.event_ids import EventIds
from push.session.op_filters import intern_ops
from push.session.outgoing import (
    PACKET_KINDS,
    Kind,
    OutgoingMessage,
    PacketKind,
    Run,
    Wrapper,
    packet_kind_of,
)
from push.session.replies import encode_reply
from push.wire import FIRST_OWN_OP, CloseCode, Op, disconnect_body


class Link(Wrapper, Protocol):
    """Connection to one client. It can be replaced without a change of the session."""

    session: "Session | None"  # the session whose `sent` the link calls
    joins_packets: bool  # whether one write may carry several packets

    @property
    def waiting(self) -> int:
        """Return the number of bytes that the kernel has not accepted yet."""

    def write(self, data: bytes, receipt: int = 0) -> None:
        """Send `data` after earlier writes. Never blocks, never raises.

        When the kernel has accepted all of `data`, the link calls `session.sent(receipt)`.

        `receipt`: a message id; 0 for none.
        """

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        """Write the rest of `data`, after a direct write of `sent` bytes to the socket."""

    def enable_direct_send(self) -> None:
        """Set `session.send` for direct writes, if the link has a socket and an empty queue."""

    def close(self, code: int, reason: str) -> None:
        """Close after earlier writes."""

    async def drained(self) -> None:
        """Wait until no bytes are waiting, or until the link is closed."""


class QuerySnapshot(Protocol):
    """Database snapshot of a query, which knows exactly which rows the query saw."""

    def includes(self, xmin: int) -> bool:
        """Return whether the query saw a row with this `xmin`."""


class Written:
    """Counts of what the sessions of a node were written.

    Plain numbers, because the counting code is hot: a microsecond matters. Only the event loop's
    thread counts.

    `frames`: frames with messages, by kind of packet.
    `deliveries`: the messages in those frames, once for each session, without dashboard updates.
    """

    __slots__ = ("deliveries", "frames")

    def __init__(self) -> None:
        self.frames = [0] * PACKET_KINDS
        self.deliveries = 0


class SessionOwner(Protocol):
    """The part of a node that its sessions use."""

    written: Written
    unacknowledged_max: int  # ids that a session remembers

    def delivered(self, message_id: int, session: "Session") -> None:
        """Record that the kernel has accepted a stored message for a session."""

    def deliver_late(self, session: "Session", message: OutgoingMessage) -> None:
        """Send a message that the replay has overtaken, if it must still be sent."""

    def audience(self, session: "Session") -> int:
        """Return the number of sessions in the room of a goim client's session."""


class Session:
    """One connected, authenticated client.

    A session starts in three steps. `hold` comes before the session joins its groups: from then
    on live messages are held. Then the replay sends the pending messages. `release` writes the
    held messages, except those that the replay has sent.

    After `release` a live copy of a replayed message may still arrive. So the session remembers
    the replayed ids until `forget_replayed`. A live message of the key goes to
    `SessionOwner.deliver_late` if the replay has overtaken it. That is, its id is below the last
    replayed id, and it was not replayed. The node then holds the session until it has checked
    the message.

    A session with `acks` acknowledges ids with op 22. For other sessions a message is settled
    when the kernel has accepted its bytes: `sent` reports that.
    """

    __slots__ = (
        "__weakref__",
        "_frames",
        "_held",
        "_hold_left",
        "_keeper",
        "_last_replayed",
        "_replayed",
        "accepts",
        "acks",
        "change_room",
        "close_code",
        "device",
        "event_ids",
        "expires_at",
        "id",
        "identity",
        "is_behind",
        "is_closed",
        "is_connecting",
        "is_goim",
        "is_opening",
        "joined",
        "key",
        "kind",
        "last_seen",
        "link",
        "names",
        "opened",
        "packet_kind",
        "retractions",
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
        keeper: SessionOwner,
        *,
        acks: bool = False,
        names: bool = False,
        accepts: Iterable[int] | None = None,
        is_goim: bool = False,
        retractions: bool = False,
        device: str | None = None,
    ) -> None:
        self.id = id
        self.identity = identity
        self.key: str = identity.key
        self.expires_at: float | None = identity.expires_at  # Unix time, seconds
        self.kind = kind
        self.link = link
        self._keeper = keeper
        self._frames = keeper.written.frames
        self.acks = acks  # acknowledges with op 22; other sessions acknowledge by reading
        # Filter of application ops (FIRST_OWN_OP and above), as goim's clients send it. None: all.
        self.accepts = None if accepts is None else intern_ops(accepts)
        # goim's client, which gets goim's bodies of replies; JSON frames cannot carry them.
        self.is_goim = is_goim and not kind.is_json
        self.retractions = retractions  # it gets op 30
        # Name of its device if its key has the scope `each`; "" if its client gave none.
        self.device = device
        self.event_ids: EventIds | None = None  # of a session of Server-Sent Events
        self.names = False  # its messages from rooms carry the room's name and their offset
        self.packet_kind = PacketKind(0)  # of this session in `OutgoingMessage.packets`
        self.set_names(names)
        self._begin()

    def _begin(self) -> None:
        """Set what changes later: a session begins outside of all rooms, and has sent nothing."""
        self.rooms: set[str] = set()
        self.change_room = ""  # the room that op 12 leaves
        self.last_seen = 0.0  # monotonic seconds of the last frame
        self.opened = 0.0  # Unix time, seconds
        # Monotonic seconds of the first query of pending messages; 0 before it. Messages that
        # were settled before that time are not for this session.
        self.joined = 0.0
        self.snapshot: QuerySnapshot | None = None  # that query's
        self.is_opening = False  # the handshake has not ended
        self.is_connecting = False  # the handshake queries its pending messages
        self.is_behind = False  # the handshake must query them once more
        self.is_closed = False
        self.was_opened = False  # its auth frame has been answered
        self.close_code = 0  # the server's close code; 0 if the client disconnected
        # The socket's `send` while direct writes are allowed: see `write_to_all`.
        self.send: Callable[[bytes], int] | None = None
        # Ids of stored messages sent and not acknowledged, the oldest first. Only with `acks`.
        self.unacknowledged: dict[int, None] | None = None
        self._held: list[OutgoingMessage] | None = None  # None outside of `hold` and `release`
        self._hold_left = 0  # bytes that may still be held
        self._replayed: set[int] | None = None  # ids; None without a replay
        self._last_replayed = 0  # the highest of those ids

    @property
    def gets_raw(self) -> bool:
        """Return whether even single messages are sent in op 9.

        Clients of goim may not know any other form.
        """
        return self.is_goim and self.kind is Kind.BINARY and not self.acks and not self.names

    def set_names(self, names: bool) -> None:
        """Choose whether messages from rooms carry the room's name from now on."""
        self.names = names
        self.renew_packet_kind()

    def renew_packet_kind(self) -> None:
        """Choose the session's packets, after a change of what they depend on."""
        self.packet_kind = packet_kind_of(
            self.kind,
            acks=self.acks,
            names=self.names,
            gets_raw=self.gets_raw,
            wraps=self.link.wraps,
            has_event_ids=self.event_ids is not None and self.event_ids.is_inline,
        )

    def accepts_op(self, op: int) -> bool:
        """Return whether the filter passes messages with this op; it passes all protocol ops."""
        return self.accepts is None or op < FIRST_OWN_OP or op in self.accepts

    def deliver(self, message: OutgoingMessage) -> None:
        """Write a live message, or hold it during the replay.

        Held messages above the limit of `hold` close the session as a slow reader.
        """
        if self._held is not None:
            self._held.append(message)
            self._hold_left -= len(message)
            if self._hold_left < 0:
                self._held.clear()
                self.disconnect(CloseCode.SLOW_READER)
        elif self._replayed is None or not message.key or message.id > self._last_replayed:
            self._write(message)
        elif message.id not in self._replayed:
            # Either another session of the key settled it before this session joined: then it
            # would be out of order here. Or it was stored after the query of pending messages.
            self._keeper.deliver_late(self, message)

    def replay(self, message: OutgoingMessage) -> None:
        """Write a pending message, unless it was replayed already, and remember its id."""
        if self._replayed is None or message.id not in self._replayed:
            self.skip(message.id)
            if not message.at:  # a held live message was counted when it arrived
                self._keeper.written.deliveries += 1
            self._write(message)

    def skip(self, message_id: int) -> None:
        """Do not write this message, of which a live copy may arrive behind later ones."""
        if self._replayed is None:
            self._replayed = set()
        self._replayed.add(message_id)
        self._last_replayed = max(message_id, self._last_replayed)

    def _write(self, message: OutgoingMessage) -> None:
        self._frames[self.packet_kind] += 1
        if self.acks and message.key:
            self.expect_acknowledgement(message.id)
        self.link.write(message.packet_for(self), message.id if message.key else 0)

    def write_run(self, run: Run) -> None:
        """Write kept messages of a room that this session has not entered yet.

        If the link allows it, they are one write of bytes that all sessions share.
        """
        messages = run.messages
        if self.accepts is not None:
            messages = [message for message in messages if self.accepts_op(message.op)]
        self._keeper.written.deliveries += len(messages)
        self._frames[self.packet_kind] += len(messages)
        if self.link.joins_packets and len(messages) == len(run.messages) > 0:
            self.link.write(run.packets_for(self))
        else:
            for message in messages:
                self.link.write(message.packet_for(self))

    def expect_acknowledgement(self, message_id: int) -> None:
        """Record that a stored message is sent to this session, which must acknowledge it.

        Above the node's `unacknowledged_max` the oldest id is dropped.
        """
        if self.unacknowledged is None:
            self.unacknowledged = {}
        self.unacknowledged[message_id] = None
        if len(self.unacknowledged) > self._keeper.unacknowledged_max:
            del self.unacknowledged[next(iter(self.unacknowledged))]

    def awaits_ack_of(self, message_id: int) -> bool:
        """Return whether the message was sent to this session and is not acknowledged yet."""
        return self.unacknowledged is not None and message_id in self.unacknowledged

    def take_acknowledged(self, message_id: int) -> bool:
        """Record an acknowledgement; return False if the message was not awaiting one."""
        if self.unacknowledged is None or message_id not in self.unacknowledged:
            return False
        del self.unacknowledged[message_id]
        if not self.unacknowledged:
            self.unacknowledged = None
        return True

    def joined_before(self, at: float, xmin: int | None) -> bool:
        """Return whether this session joined before another session of its key had a message.

        A session joins with its first query of pending messages.

        `at`: when the other session had the message, monotonic seconds. On a busy machine it is
        late by the time that storing the event takes; a client may reconnect sooner than that.
        `xmin`: that of the stored event; None if it is not stored. An event that the query saw
        precedes the query, whatever `at` is.
        """
        is_seen = xmin is not None and self.snapshot is not None and self.snapshot.includes(xmin)
        return at >= self.joined and not is_seen

    def sent(self, message_id: int) -> None:
        """Report that the kernel has accepted a message: the receipt of a session without ids."""
        self._keeper.delivered(message_id, self)

    def hold(self, limit: int) -> None:
        """Hold live messages until `release`; above `limit` bytes the session is closed."""
        self._held = []
        self._hold_left = limit

    def replay_held(self, below: int) -> None:
        """Write the held messages for the key with ids below `below`, in order of id.

        Those that the replay has overtaken stay held: `release` asks whether they are due.
        """
        if not self._held:
            return
        last = self._last_replayed
        early = [held for held in self._held if held.key and last < held.id < below]
        if early:
            taken = set(early)
            self._held = [held for held in self._held if held not in taken]
            for message in sorted(early, key=lambda held: held.id):
                self.replay(message)

    def release(self) -> None:
        """Write the held messages, except those that the replay has sent.

        They arrived for this session, so they are written even if another session of the key has
        acknowledged them meanwhile. `SessionOwner.deliver_late` checks each message that the replay
        has overtaken.
        """
        held, self._held = self._held or [], None
        for message in held:
            self.deliver(message)
        self.link.enable_direct_send()

    def drop_held(self, room: str) -> None:
        """Drop the held messages of a room that the session leaves.

        If the session joins the room again, its join sends the messages that its client has not.
        """
        if self._held:
            dropped = [held for held in self._held if held.room == room]
            self._held = [held for held in self._held if held.room != room]
            self._hold_left += sum(map(len, dropped))

    @property
    def is_held(self) -> bool:
        """Return whether the session is between `hold` and `release`."""
        return self._held is not None

    @property
    def is_replaying(self) -> bool:
        """Return whether each live message must pass `deliver`, which forbids direct writes."""
        return self._held is not None or self._replayed is not None

    def forget_replayed(self) -> None:
        """Forget the replayed ids, when no live copy of a replayed message can arrive any more."""
        if self._replayed is not None and self._held is None:
            self._replayed = None
            self.link.enable_direct_send()

    def reply(self, op: Op, seq: int, body: bytes = b"", ver: int = 1) -> None:
        """Send the reply to a frame; `body` is JSON or empty."""
        self.link.write(encode_reply(self.link, self.kind, op, seq, body=body, ver=ver))

    def reply_to_heartbeat(self, seq: int, ver: int) -> None:
        """Send the reply to a heartbeat; goim's clients get their room's number of sessions."""
        body = self._keeper.audience(self).to_bytes(4) if self.is_goim else b""
        self.link.write(
            encode_reply(self.link, self.kind, Op.HEARTBEAT_REPLY, seq, body=body, ver=ver)
        )

    def disconnect(self, code: CloseCode, reason: str = "") -> None:
        """Send the reason with op 6, then close. Further calls do nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.close_code = code
            body = disconnect_body(code, reason)
            self.link.write(encode_reply(self.link, self.kind, Op.DISCONNECT, 0, body=body))
            self.link.close(code, reason or code.reason)
