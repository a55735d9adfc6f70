"""Handshake: opens a session for an auth frame.

1. Verify the client, and check its rooms.
2. Hold live messages, add the session to the registry, and join its groups.
3. Read the first page of pending messages, and send the auth reply.
4. Replay: send the pending messages, page by page.
5. Release: send the held messages, except those that the replay has sent.

The session must join its groups before it reads the pending messages. In the other order, a message
that is pushed in between would be lost.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import Error as DatabaseError
from django.utils.module_loading import import_string

from accounts.auth_body import AuthBody
from accounts.identity import Facts, Identity
from accounts.staff import DASHBOARD, authenticate_dashboard, is_kept_apart
from imgo_site.conf import conf
from imgo_site.errors import (
    BadRequest,
    ImgoError,
    NotAuthenticated,
    RoomForbidden,
    TooManyAttempts,
    TooManySessions,
    Unavailable,
)
from imgo_site.names import DASHBOARD_ROOM, check_name
from push.bus.layers import LAYER_ERRORS
from push.connect.handshake_deadline import HandshakeDeadline
from push.connect.replay import Replay
from push.hooks import backend
from push.node.node import Node
from push.node.node_instance import NodeInstance
from push.registry.base import Entry
from push.session.session import Kind, Link, Session
from push.wire import CloseCode, Frame, Op

logger = logging.getLogger(__name__)

# Close code for each kind of error.
_CODES: list[tuple[type[ImgoError], CloseCode]] = [
    (RoomForbidden, CloseCode.ROOM_FORBIDDEN),
    (TooManySessions, CloseCode.TOO_MANY_SESSIONS),
    (TooManyAttempts, CloseCode.TOO_MANY_ATTEMPTS),
    (Unavailable, CloseCode.UNAVAILABLE),
    (NotAuthenticated, CloseCode.UNAUTHORIZED),
    (BadRequest, CloseCode.UNAUTHORIZED),
]


class Refusal(Exception):
    """Refusal of a session: a close code, and a reason for the client.

    `key`: the client's; "" if it has not been verified.
    """

    def __init__(self, code: CloseCode, reason: str, key: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.key = key


class _Client:
    """The client of a handshake. `key`: "" until it has been verified."""

    key = ""


async def ready_node(instance: NodeInstance) -> Node:
    """Return the instance's node; the first session starts it. Raises `Refusal`."""
    with _refusing():
        return await instance.node()


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """An auth frame with its parsed body, and the connection on which it came."""

    frame: Frame
    body: AuthBody
    kind: Kind
    link: Link
    facts: Facts


async def establish(node: Node, request: AuthRequest, deadline: HandshakeDeadline) -> Session:
    """Open a session for an auth frame. When this returns, the session is live.

    `deadline`: does not run while the client reads.

    If this raises or is cancelled, nothing of the session is left.
    Raises `Refusal`.
    """
    with _refusing() as client:
        body, kind, link = request.body, request.kind, request.link
        identity = await _identify(node, request)
        client.key = identity.key
        rooms = await _rooms_of(node, identity, request)
        name = node.new_session_id()
        session = Session(
            name,
            identity,
            kind,
            link,
            node,
            acks=body.ack,
            accepts=body.accepts,
            is_goim=body.is_goim,
        )
        link.session = session
        entry = Entry(
            session.id,
            session.key,
            node.id,
            kind.transport,
            request.facts.address,
            body.platform,
            node.clock.now(),
        )
        try:
            await _admit(node, session, entry, body, rooms)
            await _reply_and_replay(node, session, request, deadline)
        except BaseException:
            await node.dismiss(session)
            raise
        return session


@contextmanager
def _refusing() -> Iterator[_Client]:
    """Convert errors into a `Refusal`, and log those that are not the client's."""
    client = _Client()
    try:
        yield client
    except ImgoError as error:
        if isinstance(error, Unavailable):
            logger.warning("a session could not be opened: %s", error.message)
        codes = (code for kind, code in _CODES if isinstance(error, kind))
        code = next(codes, CloseCode.INTERNAL_ERROR)
        raise Refusal(code, error.message, client.key) from None
    except (DatabaseError, *LAYER_ERRORS) as error:
        logger.warning("a session could not be opened: %s", error)
        raise Refusal(*_outcome(CloseCode.UNAVAILABLE), client.key) from error
    except Exception as error:
        logger.exception("a session could not be opened")
        raise Refusal(*_outcome(CloseCode.INTERNAL_ERROR), client.key) from error


def _outcome(code: CloseCode) -> tuple[CloseCode, str]:
    return code, code.reason


async def _identify(node: Node, request: AuthRequest) -> Identity:
    facts, guard = request.facts, node.guard
    await guard.admit(facts.address)
    try:
        if DASHBOARD_ROOM in request.body.rooms:  # nobody else may grant this room
            identity = await authenticate_dashboard(facts)
        elif conf.AUTHENTICATE_URL:
            identity = await backend.authenticate(
                node.hooks, request.body, facts, lambda: not is_connected(request.link)
            )
        else:
            identity = await import_string(conf.AUTHENTICATOR)(request.body, facts)
            check_name(identity.key, "key")
    except NotAuthenticated:
        guard.failed(facts.address)
        raise
    if identity.expires_at is not None and identity.expires_at <= facts.clock.now():
        raise NotAuthenticated("The token is not valid or has expired.")
    return identity


def is_connected(link: Link) -> bool:
    """Return whether the client is still there, as far as the link knows."""
    return bool(getattr(link, "is_open", True))


async def _rooms_of(node: Node, identity: Identity, request: AuthRequest) -> list[str]:
    """Return the rooms of a new session: those of its identity, and those of its auth body.

    Raises `RoomForbidden`; `BadRequest` for too many rooms; `Unavailable`.
    """
    rooms = list(dict.fromkeys((*identity.join, *request.body.rooms)))
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        raise BadRequest(f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most.")
    for room in rooms:
        await check_room(node, identity, room, request.link)
    return rooms


async def check_room(node: Node, identity: Identity, room: str, link: Link) -> None:
    """Raise `RoomForbidden` unless `ROOM_AUTHORIZER` admits the identity to the room.

    The dashboard's room admits only dashboard sessions, and they may join no other room. The
    authorizer is not called for either, nor for the rooms that the identity joins anyway.

    `link`: of the client, which may disconnect while its room waits for a hook.
    Raises `Unavailable` if a hook does not answer.
    """
    if is_kept_apart(identity, room):
        raise RoomForbidden(f"Not allowed in the room {room!r}.")
    if identity.source == DASHBOARD or room in identity.join:
        return
    if conf.AUTHORIZE_ROOM_URL:
        is_allowed = await backend.authorize_room(
            node.hooks, identity, room, lambda: not is_connected(link)
        )
    else:
        is_allowed = await import_string(conf.ROOM_AUTHORIZER)(identity, room)
    if not is_allowed:
        raise RoomForbidden(f"Not allowed in the room {room!r}.")


async def _admit(
    node: Node, session: Session, entry: Entry, body: AuthBody, rooms: list[str]
) -> None:
    session.is_connecting = True
    session.hold(conf.SESSION_BYTES)
    session.opened = entry.since
    session.last_seen = asyncio.get_running_loop().time()
    # goim has one room per connection, whoever chose it. Of several rooms, op 12 leaves none.
    session.change_room = body.change_room or (rooms[0] if len(rooms) == 1 else "")
    await node.admit(session, entry, rooms)


async def _reply_and_replay(
    node: Node, session: Session, request: AuthRequest, deadline: HandshakeDeadline
) -> None:
    """Send the auth reply, the pending messages page by page in order of id, and the held ones.

    The reply is sent after the first page is read: a client must not get it while its pending
    messages cannot be read.
    """
    replay = Replay(node, session, request.body.since)
    page = await replay.next_page()
    session.reply(Op.AUTH_REPLY, request.frame.seq, ver=request.frame.ver)
    node.record_opened(session)
    while page is not None:
        await replay.write(page, deadline)
        if session.is_closed:
            break
        page = await replay.next_page()
    session.is_connecting = False
    session.release()
