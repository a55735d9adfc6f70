"""Handshake: opens a session for an auth frame.

1. Verify the client, check its rooms, and register its device if its key has devices.
2. Hold live messages, add the session to the registry, and join its groups.
3. Read the first page of pending messages, and send the auth reply.
4. Replay: send the pending messages, page by page.
5. Release: send the held messages, except those that the replay has sent.

The session must join its groups before it reads the pending messages. In the other order, a message
that is pushed in between would be lost.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from django.db import Error as DatabaseError
from django.utils.module_loading import import_string

from accounts.auth_body import AuthBody, RoomRequest
from accounts.identity import Facts, Identity
from accounts.login_throttle import LoginThrottle
from accounts.staff import DASHBOARD, authenticate_dashboard, is_kept_apart
from imgo_site.conf import conf
from imgo_site.errors import (
    BackendUnavailable,
    BadRequest,
    ImgoError,
    NotAuthenticated,
    RoomForbidden,
    TooManyAttempts,
    TooManySessions,
    Unavailable,
)
from imgo_site.names import DASHBOARD_ROOM, check_name
from imgo_site.room_policies import policy_of
from push.bus.layers import LAYER_ERRORS
from push.connect import device_names
from push.connect.events_request import EventsRequest, opening_event
from push.connect.handshake_deadline import HandshakeDeadline
from push.connect.replay import Replay
from push.hooks import backend
from push.hooks.client import HookClient
from push.node import stream_joins
from push.node.node import Node
from push.node.node_instance import NodeInstance
from push.node.stream_joins import StreamJoin
from push.registry.base import Entry
from push.session.outgoing import Kind
from push.session.session import Link, Session
from push.wire import CloseCode, Frame, Op, compact_json

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

    `key`: the client's; "" if it has not been verified. `error`: the cause, if it is one of ours.
    """

    def __init__(
        self, code: CloseCode, reason: str, key: str = "", error: ImgoError | None = None
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.key = key
        self.error = error


class _Client:
    """The client of a handshake.

    `key`: "" until it has been verified. `sends_object`: its auth body is a JSON object.
    """

    key = ""
    sends_object = False


async def ready_node(instance: NodeInstance) -> Node:
    """Return the instance's node; the first session starts it. Raises `Refusal`."""
    if (running := instance.running) is not None:
        return running[0]
    with _refusing():
        return await instance.node()


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """An auth frame with its parsed body, and the connection on which it came.

    `events`: what a client of Server-Sent Events asks for besides; None for other clients.
    """

    frame: Frame
    body: AuthBody
    kind: Kind
    link: Link
    facts: Facts
    events: EventsRequest | None = None


async def establish(node: Node, request: AuthRequest, deadline: HandshakeDeadline) -> Session:
    """Open a session for an auth frame. When this returns, the session is live.

    `deadline`: does not run while the client reads.

    If this raises or is cancelled, nothing of the session is left.
    Raises `Refusal`.
    """
    with _refusing() as client:
        body, link = request.body, request.link
        client.sends_object = not body.is_bare
        hooks, is_gone = node.hooks, lambda: not is_connected(link)
        identity = await identify(body, request.facts, node.guard, hooks, is_gone)
        client.key = identity.key
        rooms = await _rooms_of(node, identity, request)
        if request.events is not None:
            body = replace(body, requests=request.events.of_rooms(rooms))
            request = replace(request, body=body)
        device = await device_names.register(identity, body.device)
        session, entry = _new_session(node, request, identity, device)
        try:
            kept = kept_rooms(body)
            await _admit(node, session, entry, body, rooms, later=kept)
            for room, room_request in (body.requests or {}).items():
                if room_request.presence:
                    node.presence.watch(session, room)
            if kept:
                async with stream_joins.joining(node.hub, session, kept) as joins:
                    await _reply_and_replay(node, session, request, deadline, joins)
            else:
                await _reply_and_replay(node, session, request, deadline, {})
        except BaseException:
            await node.dismiss(session)
            raise
        return session


def _new_session(
    node: Node, request: AuthRequest, identity: Identity, device: str | None
) -> tuple[Session, Entry]:
    """Return a session for a client that may open one, and its entry for the registry."""
    body, kind = request.body, request.kind
    session = Session(
        node.new_session_id(),
        identity,
        kind,
        request.link,
        node.receipts,
        acks=body.ack,
        names=body.names,
        accepts=body.accepts,
        is_goim=body.is_goim,
        retractions=body.retractions,
        device=device,
    )
    request.link.session = session
    entry = Entry(
        session.id,
        session.key,
        node.id,
        kind.transport,
        request.facts.address,
        body.platform,
        node.clock.now(),
    )
    return session, entry


@contextmanager
def _refusing() -> Iterator[_Client]:
    """Convert errors into a `Refusal`, and log those that are not the client's."""
    client = _Client()
    try:
        yield client
    except ImgoError as error:
        if isinstance(error, Unavailable) and not isinstance(error, BackendUnavailable):
            logger.warning("a session could not be opened: %s", error.message)
        codes = (code for kind, code in _CODES if isinstance(error, kind))
        code = next(codes, CloseCode.INTERNAL_ERROR)
        if isinstance(error, BadRequest) and client.sends_object:
            # The same object would be refused again. A client of imgo (Go) sends only a token.
            code = CloseCode.BAD_FRAME
        raise Refusal(code, error.message, client.key, error) from None
    except (DatabaseError, *LAYER_ERRORS) as error:
        logger.warning("a session could not be opened: %s", error)
        raise Refusal(*_outcome(CloseCode.UNAVAILABLE), client.key) from error
    except Exception as error:
        logger.exception("a session could not be opened")
        raise Refusal(*_outcome(CloseCode.INTERNAL_ERROR), client.key) from error


def _outcome(code: CloseCode) -> tuple[CloseCode, str]:
    return code, code.reason


async def identify(
    body: AuthBody,
    facts: Facts,
    guard: LoginThrottle,
    hooks: HookClient,
    is_gone: Callable[[], bool],
) -> Identity:
    """Return the identity of a client.

    `is_gone`: whether the client has disconnected; a hook is then not called.

    Raises an `ImgoError`, a `BadRequest` only for a mistake in the body; what the database raises.
    """
    await guard.admit(facts.address)
    try:
        if DASHBOARD_ROOM in body.rooms:  # nobody else may grant this room
            identity = await authenticate_dashboard(facts)
        elif conf.AUTHENTICATE_URL:
            identity = await backend.authenticate(hooks, body, facts, is_gone)
        else:
            identity = await import_string(conf.AUTHENTICATOR)(body, facts)
            check_name(identity.key, "key")
    except NotAuthenticated:
        guard.failed(facts.address)
        raise
    except BadRequest as error:
        if body.mistake:
            raise
        raise NotAuthenticated(error.message) from None  # the login has no usable key
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
    authorizer is not called for either, nor for the rooms that the identity joins anyway. A room
    whose policy limits its sessions admits nobody when it is full; those who join at the same
    moment may exceed the limit.

    `link`: of the client, which may disconnect while its room waits for a hook.
    Raises `Unavailable` if a hook does not answer.
    """
    if is_kept_apart(identity, room):
        raise RoomForbidden(f"Not allowed in the room {room!r}.")
    if identity.source == DASHBOARD:
        return
    if limit := policy_of(room).max_sessions:
        (count,) = await asyncio.to_thread(node.registry.sizes, [room])
        if count >= limit:
            raise Unavailable(f"The room {room!r} is full.")
    if room in identity.join:
        return
    if conf.AUTHORIZE_ROOM_URL:
        is_allowed = await backend.authorize_room(
            node.hooks, identity, room, lambda: not is_connected(link)
        )
    else:
        is_allowed = await import_string(conf.ROOM_AUTHORIZER)(identity, room)
    if not is_allowed:
        raise RoomForbidden(f"Not allowed in the room {room!r}.")


def expires_in(node: Node, identity: Identity) -> dict[str, float]:
    """Return the member of an auth reply that says how long the session may last, in seconds.

    An identity that does not expire has none.
    """
    if identity.expires_at is None:
        return {}
    return {"expires_in": round(max(0.0, identity.expires_at - node.clock.now()), 3)}


def kept_rooms(body: AuthBody) -> dict[str, RoomRequest]:
    """Return the rooms with history that a client asks for in the object form."""
    requests = body.requests or {}
    return {room: request for room, request in requests.items() if policy_of(room).history}


async def _admit(
    node: Node,
    session: Session,
    entry: Entry,
    body: AuthBody,
    rooms: list[str],
    *,
    later: Collection[str],
) -> None:
    session.is_opening = session.is_connecting = True
    session.hold(conf.SESSION_BYTES)
    session.opened = entry.since
    session.last_seen = asyncio.get_running_loop().time()
    # goim has one room per connection, whoever chose it. Of several rooms, op 12 leaves none.
    session.change_room = body.change_room or (rooms[0] if len(rooms) == 1 else "")
    await node.admit(session, entry, rooms, later)


async def _reply_and_replay(
    node: Node,
    session: Session,
    request: AuthRequest,
    deadline: HandshakeDeadline,
    joins: Mapping[str, StreamJoin],
) -> None:
    """Send the auth reply, the pending messages page by page in order of id, and the held ones.

    Before the held ones come those that were asked for of rooms with history: `joins`.

    The reply is sent after the first page is read: a client must not get it while its pending
    messages cannot be read.
    """
    resumed = None if request.events is None else request.events.resumed_at
    replay = Replay(node, session, request.body.since, resumed)
    page = await replay.next_page()
    _reply(node, session, request, joins)
    node.record_opened(session)
    while page is not None:
        await replay.write(page, deadline)
        if session.is_closed:
            break
        page = await replay.next_page()
    session.is_connecting = False
    if joins:

        async def until_read() -> None:
            if session.link.waiting:
                with deadline.reading():
                    await session.link.drained()

        await stream_joins.finish(joins.values(), until_read)
    session.release()
    session.is_opening = False
    node.hub.event_ids.moved(session)


def _reply(
    node: Node, session: Session, request: AuthRequest, joins: Mapping[str, StreamJoin]
) -> None:
    """Send the auth reply, or the first event of a stream of events."""
    requests = request.body.requests
    rooms = {} if requests is None else _room_replies(requests, joins)
    lasts = expires_in(node, session.identity) if request.body.renews else {}
    if request.events is not None:
        places = {room: join.position for room, join in joins.items()}
        block = node.hub.event_ids.begin(session, places, request.events.resumed_at)
        session.link.write(opening_event(session.id, rooms, request.events, lasts) + block)
        return
    reply: dict[str, object] = dict(lasts) if requests is None else {"rooms": rooms, **lasts}
    if request.body.session:
        reply["session"] = session.id
    body = compact_json(reply) if reply else b""
    session.reply(Op.AUTH_REPLY, request.frame.seq, body, request.frame.ver)


def _room_replies(
    requests: Mapping[str, RoomRequest], joins: Mapping[str, StreamJoin]
) -> dict[str, dict[str, object]]:
    """Return the position of each room that was asked for, for the auth reply."""
    return {
        room: joins[room].reply() if room in joins else stream_joins.reply_without_history(asked)
        for room, asked in requests.items()
    }
