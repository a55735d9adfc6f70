"""Kept messages of streams as a node has them: for delivery, as tombstones, and what they cost."""

from offline.streams import KeptMessage
from push.session.outgoing import OutgoingMessage

MESSAGE_COST = 400  # bytes of a message in a tail besides its body, roughly
BODY_COPIES = 3  # of a message in a tail: the body, and frames of the usual kinds


def outgoing(room: str, epoch: str, kept: KeptMessage, now: float) -> OutgoingMessage:
    """Return a kept message for delivery; the time since its acceptance is not measured."""
    return OutgoingMessage(
        kept.id,
        kept.op,
        kept.body,
        kept.is_json,
        room=room,
        offset=kept.offset,
        epoch=epoch,
        seen=now,
        sender=kept.sender,
        collapse_key=kept.collapse_key,
    )


def tombstone_of(message: OutgoingMessage) -> OutgoingMessage:
    """Return a tombstone with the place of a message."""
    return OutgoingMessage(
        message.id, message.op, b"", True, room=message.room, offset=message.offset,
        epoch=message.epoch, seen=message.seen,
    )  # fmt: skip


def cost_of(message: OutgoingMessage) -> int:
    """Return the bytes that a message takes in a tail, roughly."""
    return MESSAGE_COST + BODY_COPIES * len(message)
