"""Handlers of the frames about rooms: join, leave, change the room, history, presence."""

import logging
from collections.abc import Callable
from typing import Any

from django.db import Error as DatabaseError

from accounts.auth_body import RoomRequest
from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from imgo_site.errors import BadRequest, ImgoError, NotFound, RoomForbidden, Unavailable
from imgo_site.names import check_name
from imgo_site.room_policies import policy_of
from push.accept.frame_bodies import (
    body_value,
    check_members,
    error_body,
    joined_room,
    room_name,
)
from push.connect.handshake import check_room
from push.node import stream_joins
from push.node.node import Node
from push.node.stream_joins import StreamJoin
from push.session.session import Session
from push.status import room_history
from push.wire import Frame, Op, compact_json

logger = logging.getLogger(__name__)

HISTORY_BYTES = 262_144  # of the bodies in one reply to a client


async def on_change_room(node: Node, session: Session, frame: Frame) -> None:
    """Op 12 (CHANGE_ROOM): join a room, and leave the room of the last op 12 or the auth body."""
    body = frame.body if session.is_goim else b""
    try:
        room = room_name(frame.body)
        if room:
            await _join(node, session, room)
        if session.is_closed:
            return
        if session.change_room and session.change_room != room:
            await node.membership.leave(session, session.change_room)
        session.change_room = room
    except ImgoError as error:
        body = error_body(error)
    session.reply(Op.CHANGE_ROOM_REPLY, frame.seq, body, frame.ver)


async def on_join(node: Node, session: Session, frame: Frame) -> None:
    """Op 18 (JOIN): join a room and stay in the others.

    The reply comes before the messages that a client asks for with the object form.
    """

    def reply(body: bytes) -> None:
        session.reply(Op.JOIN_REPLY, frame.seq, body, frame.ver)

    try:
        room, request = joined_room(frame.body)
        check_name(room, "room")
        if request is None:
            await _join(node, session, room)
            reply(b"")
        else:
            await _join_with(
                node, session, room, request, lambda members: reply(compact_json(members))
            )
    except ImgoError as error:
        reply(error_body(error))
    except DatabaseError as error:
        reply(error_body(_unreadable(error)))


async def on_leave(node: Node, session: Session, frame: Frame) -> None:
    """Op 20 (LEAVE): leave a room. Leaving a room that the session is not in is no error."""
    body = b""
    try:
        room = check_name(room_name(frame.body), "room")
        if room in session.rooms:
            await node.membership.leave(session, room)
    except ImgoError as error:
        body = error_body(error)
    session.reply(Op.LEAVE_REPLY, frame.seq, body, frame.ver)


async def on_history(node: Node, session: Session, frame: Frame) -> None:  # noqa: ARG001
    """Op 24 (HISTORY): reply with kept messages of a room that the session is in."""
    try:
        value = body_value(frame.body)
        query = room_history.query_of(value)
        check_members(value, room_history.MEMBERS, Op.HISTORY)
        check_member(session, query.room)
        body = await session_threads.run(room_history.page, query, HISTORY_BYTES)
    except ImgoError as error:
        body = error_body(error)
    except DatabaseError as error:
        body = error_body(_unreadable(error))
    session.reply(Op.HISTORY_REPLY, frame.seq, body, frame.ver)


async def on_presence(node: Node, session: Session, frame: Frame) -> None:
    """Op 26 (PRESENCE): reply with the keys in a room that the session is in."""
    try:
        room = check_name(room_name(frame.body), "room")
        check_member(session, room)
        if not policy_of(room).presence:
            raise NotFound(f"No policy in ROOMS gives the room {room!r} presence.")
        body = await node.presence.snapshot(room)
    except ImgoError as error:
        body = error_body(error)
    session.reply(Op.PRESENCE_REPLY, frame.seq, body, frame.ver)


def check_member(session: Session, room: str) -> None:
    """Raise `RoomForbidden` if the session is not in the room."""
    if room not in session.rooms:
        raise RoomForbidden(f"The session is not in the room {room!r}.")


def _unreadable(error: DatabaseError) -> Unavailable:
    logger.warning("the messages of a room could not be read: %s", error)
    return Unavailable("The room's messages cannot be read now; try again.")


async def _join(node: Node, session: Session, room: str) -> None:
    check_name(room, "room")
    if room in session.rooms:
        return
    await _check_may_join(node, session, room)
    if session.is_closed:  # while the room's authorizer was running
        return
    await node.membership.join(session, room)


async def _join_with(
    node: Node,
    session: Session,
    room: str,
    request: RoomRequest,
    on_reply: Callable[[dict[str, Any]], None],
) -> None:
    """Join a room by the object form of a request.

    `on_reply`: gets the members of the reply.
    """
    if room in session.rooms:
        raise BadRequest("The session is in the room already: leave it first.")
    session.set_names(True)
    if not policy_of(room).history:
        await _join(node, session, room)
        if request.presence:
            node.presence.watch(session, room)
        on_reply(stream_joins.reply_without_history(request))
        return
    await _check_may_join(node, session, room)

    def joined(join: StreamJoin) -> None:
        if request.presence:
            node.presence.watch(session, room)
        on_reply(join.reply())

    if not session.is_closed:
        await node.membership.join_stream(session, room, request, joined)


async def _check_may_join(node: Node, session: Session, room: str) -> None:
    check_name(room, "room")
    if len(session.rooms) >= conf.MAX_ROOMS_PER_SESSION:
        raise BadRequest(f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most.")
    await check_room(node, session.identity, room, session.link)
