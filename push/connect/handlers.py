"""Handlers of the frames that clients send after the auth frame: one table, op to coroutine.

A handler gets the node, the session and the frame. It needs no consumer, so it also serves a
session whose consumer has ended. To add an op, write a coroutine and add it to `HANDLERS`.

The handlers of joins and of rooms are in `push/connect/room_handlers.py`, that of messages to rooms
in `publishing.py`, that of another token in `renewal.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from json import loads
from typing import Any

from django.db import Error as DatabaseError
from django.utils.module_loading import import_string

from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError, Unavailable
from imgo_site.names import INT64_MAX, check_number
from push.accept.frame_bodies import body_value, error_body, is_json, ops_of, reply_body
from push.connect import publishing, renewal, room_handlers
from push.hooks import backend
from push.node.node import Node
from push.session.op_filters import intern_ops
from push.session.session import Session
from push.webhooks import received
from push.wire import CloseCode, Frame, Op, json_body

logger = logging.getLogger(__name__)

ACCEPTS_MAX = 1_000  # ops that a session may name

Handler = Callable[[Node, Session, Frame], Awaitable[None]]
Accepts = frozenset[int] | None  # the ops that a session receives; None: every op


async def handle(node: Node, session: Session, frame: Frame) -> None:
    """Pass a frame to the handler of its op. An unknown op closes the session."""
    session.last_seen = asyncio.get_running_loop().time()
    handler = HANDLERS.get(frame.op)
    if handler is None:
        session.disconnect(CloseCode.UNKNOWN_OP, f"unknown operation {frame.op}")
        return
    await handler(node, session, frame)


async def on_handshake(node: Node, session: Session, frame: Frame) -> None:  # noqa: ARG001
    """Op 0 (HANDSHAKE): reply. Frame and reply have no body."""
    session.reply(Op.HANDSHAKE_REPLY, frame.seq, ver=frame.ver)


async def on_heartbeat(node: Node, session: Session, frame: Frame) -> None:  # noqa: ARG001
    """Op 2 (HEARTBEAT): reply. The body of the frame is ignored."""
    session.reply_to_heartbeat(frame.seq, frame.ver)


async def on_test(node: Node, session: Session, frame: Frame) -> None:  # noqa: ARG001
    """Op 254 (TEST): reply with the same body as the original imgo server."""
    session.reply(Op.TEST_REPLY, frame.seq, b'{"test":"come on"}', frame.ver)


async def on_send(node: Node, session: Session, frame: Frame) -> None:
    """Op 4 (SEND): pass an upstream message to the project's receiver; reply with its answer.

    It is stored for webhooks before the reply, so a client that has a reply need not repeat it.
    """
    try:
        value = body_value(frame.body)
        if conf.RECEIVE_URL:
            answer = await backend.receive(node.hooks, session.identity, frame.op, value)
        else:
            answer = await import_string(conf.RECEIVER)(session.identity, frame.op, value)
        body = reply_body(answer)
        await _record(session, frame, value)
    except ImgoError as error:
        body = error_body(error)
    except Exception:
        logger.exception("the receiver failed for an upstream message")
        body = error_body(ImgoError("internal error"))
    session.reply(Op.MESSAGE, frame.seq, body, frame.ver)


async def _record(session: Session, frame: Frame, value: Any) -> None:
    """Store an upstream message for webhooks. Raises `Unavailable`."""
    try:
        await received.record(session.key, session.id, frame.op, value, frame.body)
    except DatabaseError as error:
        logger.warning("an upstream message could not be stored for webhooks: %s", error)
        raise Unavailable("The message could not be stored; send it again.") from None


async def on_sub(node: Node, session: Session, frame: Frame) -> None:  # noqa: ARG001
    """Op 14 (SUB): add ops to the session's filter.

    A session without a filter receives every op. Its first SUB replaces that with exactly these.
    """
    _change_filter(session, frame, lambda accepted, ops: (accepted or frozenset()) | ops)


async def on_unsub(node: Node, session: Session, frame: Frame) -> None:  # noqa: ARG001
    """Op 16 (UNSUB): remove ops from the session's filter, if it has one."""
    _change_filter(
        session, frame, lambda accepted, ops: None if accepted is None else accepted - ops
    )


async def on_ack(node: Node, session: Session, frame: Frame) -> None:
    """Op 22 (ACK): see `acknowledge`. There is no reply."""
    acknowledge(node, session, frame)


def acknowledge(node: Node, session: Session, frame: Frame) -> None:
    """Record that the client has handled messages. The body is a JSON list of their ids.

    Acknowledgements of a session that has ended count too: its client had received the messages.
    """
    try:
        ids = loads(frame.body)
        if not isinstance(ids, list):
            raise BadRequest("The body of an ack is a list of message ids.")
        numbers = [check_number(i, "A message id", lowest=1, highest=INT64_MAX) for i in ids]
    except (ValueError, RecursionError, ImgoError):
        reason = "the body of an ack must be a JSON list of message ids"
        session.disconnect(CloseCode.BAD_FRAME, reason)
        return
    for number in numbers:
        node.receipts.acknowledged(number, session)


HANDLERS: dict[int, Handler] = {
    Op.HANDSHAKE: on_handshake,
    Op.HEARTBEAT: on_heartbeat,
    Op.SEND: on_send,
    Op.AUTH: renewal.on_auth,
    Op.CHANGE_ROOM: room_handlers.on_change_room,
    Op.SUB: on_sub,
    Op.UNSUB: on_unsub,
    Op.JOIN: room_handlers.on_join,
    Op.LEAVE: room_handlers.on_leave,
    Op.ACK: on_ack,
    Op.HISTORY: room_handlers.on_history,
    Op.PUBLISH: publishing.on_publish,
    Op.PRESENCE: room_handlers.on_presence,
    Op.TEST: on_test,
}


def _change_filter(
    session: Session, frame: Frame, change: Callable[[Accepts, frozenset[int]], Accepts]
) -> None:
    """Change the session's filter of ops. The reply repeats the body of the request, as in goim."""
    body = frame.body
    if session.kind.is_json:  # a text session may still send a binary message
        body = json_body(body, is_json=not body or is_json(body))
    try:
        accepted = change(session.accepts, frozenset(ops_of(frame.body)))
        if accepted is not None and len(accepted) > ACCEPTS_MAX:
            raise BadRequest(f"A session may name {ACCEPTS_MAX} ops at most.")
        session.accepts = None if accepted is None else intern_ops(accepted)
    except ImgoError as error:
        body = error_body(error)
    session.reply(Op(frame.op + 1), frame.seq, body, frame.ver)
