"""Handler of messages that clients publish to rooms (op 32).

A message must pass these checks, and is refused with a code otherwise:

1. Its body is well formed, and the session is in the room.
2. The policy of the room lets its members publish (`client_publish`).
3. The clients of the key do not publish too fast (`MAX_PUBLISHES_PER_SECOND`).
4. The authorizer, or the user's backend, does not forbid it.

It is then accepted like every push, together with those of other sessions of the same moment. The
reply follows the commit.
"""

import json
import logging
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from django.utils.module_loading import import_string

from imgo_site.batching import BatchLoader
from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from imgo_site.errors import (
    BadRequest,
    ImgoError,
    PublishForbidden,
    TooManyPublishes,
)
from imgo_site.names import INT32_MAX, check_name, check_number
from imgo_site.push_origin import current_origin
from imgo_site.room_policies import MEMBERS_ONLY, policy_of
from push.accept.accept import Push, accept_pushes, encode_body
from push.accept.frame_bodies import body_value, check_members, error_body
from push.connect.handshake import is_connected
from push.connect.room_handlers import check_member
from push.hooks import backend
from push.metrics import definitions as metrics
from push.node.node import Node
from push.session.session import Session
from push.wire import Frame, Op, compact_json

logger = logging.getLogger(__name__)

BY = "client"  # the caller of these pushes in their records
ID_MAX = 100  # characters of the id that a client chooses for a message
STORE = ("always", "never")
MEMBERS = ("room", "body", "id", "op", "store", "echo")


async def on_publish(node: Node, session: Session, frame: Frame) -> None:
    """Op 32 (PUBLISH): push a message to a room; reply with its id when it is committed."""
    try:
        push = _push_of(session, body_value(frame.body))
        await _check_permission(node, session, push.room)
        message_id = await _accepted.get(_Publish(push, current_origin()))
        body = compact_json({"room": push.room, "id": str(message_id)})
    except ImgoError as error:
        body = _refused(error)
    except Exception:
        logger.exception("a message of a client could not be published")
        body = _refused(ImgoError("internal error"))
    session.reply(Op.PUBLISH_REPLY, frame.seq, body, frame.ver)


def _refused(error: ImgoError) -> bytes:
    metrics.PUBLISHES_REFUSED.labels(error.code).inc()
    return error_body(error)


def _push_of(session: Session, value: Any) -> Push:
    """Return the push that a body asks for. Raises `BadRequest`, `RoomForbidden`, `TooLarge`."""
    if not isinstance(value, dict) or "body" not in value:
        raise BadRequest('Publish an object, such as {"room": "chat-1", "body": "hello"}.')
    check_members(value, MEMBERS, Op.PUBLISH)
    room = check_name(value.get("room"), "room")
    check_member(session, room)
    store, echo = value.get("store", "always"), value.get("echo", True)
    if store not in STORE:
        raise BadRequest(f"store is one of: {', '.join(STORE)}.")
    if not isinstance(echo, bool):
        raise BadRequest("echo is true or false.")
    op = value.get("op", int(Op.MESSAGE))
    if isinstance(op, str):  # the check of the API's parameters accepts digits
        raise BadRequest("op is a number, not a text.")
    op = check_number(op, "op", lowest=0, highest=INT32_MAX)
    body, is_json = encode_body(value["body"])
    return Push(
        body,
        room=room,
        is_json=is_json,
        op=op,
        store=store == "always",
        dedupe_id=_dedupe_id(session.key, room, value.get("id")),
        sender=session.key,
        exclude=() if echo else (session.id,),
    )


def _dedupe_id(key: str, room: str, chosen: object) -> str:
    """Return the dedupe id of a message for which its client has chosen an id; "" without one.

    All clients share one table. So the id covers the key: a client cannot use up the ids of others.
    Raises `BadRequest`.
    """
    if chosen is None:
        return ""
    if not isinstance(chosen, str) or not 0 < len(chosen) <= ID_MAX:
        raise BadRequest(f"id is a text of 1 to {ID_MAX} characters.")
    return blake2b(json.dumps([key, room, chosen]).encode(), digest_size=32).hexdigest()


async def _check_permission(node: Node, session: Session, room: str) -> None:
    """Raise `PublishForbidden`, `TooManyPublishes`, or `Unavailable`."""
    if policy_of(room).client_publish != MEMBERS_ONLY:
        raise PublishForbidden(
            f"Clients may not publish to the room {room!r}: its policy in ROOMS has no "
            f'client_publish of "{MEMBERS_ONLY}".'
        )
    if not node.publish_limits.admits(session.key):
        raise TooManyPublishes(
            f"At most {conf.MAX_PUBLISHES_PER_SECOND} messages in a second; send it again later."
        )
    if not await _is_permitted(node, session, room):
        raise PublishForbidden(f"You may not publish to the room {room!r}.")


async def _is_permitted(node: Node, session: Session, room: str) -> bool:
    """Return whether the authorizer lets a member of a room publish to it.

    A `ROOM_AUTHORIZER` without `may_publish` leaves that to the policy. The answer of the user's
    backend is remembered for a while.
    """
    if not conf.AUTHORIZE_ROOM_URL:
        may_publish = getattr(import_string(conf.ROOM_AUTHORIZER), "may_publish", None)
        return may_publish is None or bool(await may_publish(session.identity, room))
    remembered = node.publish_limits.permission(session.id, room)
    if remembered is not None:
        return remembered
    is_allowed = await backend.authorize_room(
        node.hooks, session.identity, room, lambda: not is_connected(session.link), "publish"
    )
    node.publish_limits.remember(session.id, room, is_allowed=is_allowed)
    return is_allowed


@dataclass(eq=False)
class _Publish:
    """One message. Equal messages are distinct keys of the loader."""

    push: Push
    origin: str


def _accept(messages: list[_Publish]) -> dict[_Publish, int]:
    pushes = [message.push for message in messages]
    ids = accept_pushes(pushes, BY, [message.origin for message in messages])
    return dict(zip(messages, ids, strict=True))


# Messages of the same few milliseconds share one transaction.
_accepted: BatchLoader[_Publish, int] = BatchLoader(_accept, session_threads)
