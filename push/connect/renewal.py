"""Handler of a new token in an open session (op 7). The session then lasts as long as the token.

The token must be for the same key. A refused token leaves the session unchanged.
"""

import logging
from dataclasses import replace

from django.db import Error as DatabaseError

from accounts.auth_body import parse_auth_body
from accounts.identity import Facts, Identity
from imgo_site.errors import Forbidden, ImgoError, Unavailable
from push.accept.frame_bodies import error_body
from push.connect.handshake import expires_in, identify, is_connected
from push.node.node import Node
from push.session.session import Session
from push.wire import Frame, Op, compact_json

logger = logging.getLogger(__name__)


async def on_auth(node: Node, session: Session, frame: Frame) -> None:
    """Op 7 (AUTH) of an open session: renew its token; reply with the seconds that it lasts."""
    try:
        identity = await _identity(node, session, frame.body)
        session.identity, session.expires_at = identity, identity.expires_at
        node.presence.renew_info(session)
        body = compact_json(expires_in(node, identity))
    except ImgoError as error:
        body = error_body(error)
    except DatabaseError as error:
        logger.warning("a token could not be renewed: %s", error)
        body = error_body(Unavailable("The token cannot be verified now; send it again."))
    except Exception:
        logger.exception("a token could not be renewed")
        body = error_body(ImgoError("internal error"))
    session.reply(Op.AUTH_REPLY, frame.seq, body, frame.ver)


async def _identity(node: Node, session: Session, data: bytes) -> Identity:
    """Return the identity by a new token, which must have the session's key.

    The headers of the connection are not kept, so a cookie cannot be renewed.
    """
    entry = node.entries.get(session.id)
    facts = Facts(session.kind.transport, "" if entry is None else entry.address, clock=node.clock)
    body = parse_auth_body(data, token_only=True)
    identity = await identify(
        body, facts, node.guard, node.hooks, lambda: not is_connected(session.link)
    )
    if identity.key != session.key:
        raise Forbidden("The token is for another key; open a session of its own with it.")
    return replace(identity, alias=session.identity.alias)  # its group is joined
