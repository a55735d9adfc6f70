"""Receipts of messages by a node's sessions, and messages that a replay has overtaken."""

import asyncio
import logging

from django.db import Error as DatabaseError

from imgo_site.conf import conf
from offline.node_io import Acknowledger, find_delivery
from push.bus.group_names import ALL, key_group
from push.fanout import ONLINE_FACTOR
from push.metrics import definitions as metrics
from push.node.hub import Hub
from push.node.room_sizes import RoomSizes
from push.session.outgoing import OutgoingMessage
from push.session.session import Session

logger = logging.getLogger(__name__)


class Receipts:
    """The `SessionOwner` of a node's sessions: it passes their receipts to the acknowledger."""

    def __init__(self, hub: Hub, acknowledger: Acknowledger, rooms: RoomSizes) -> None:
        self._hub = hub
        self._acknowledger = acknowledger
        self._rooms = rooms
        self.written = hub.written
        # No key has more pending messages: `push.fanout.trim` drops the oldest.
        self.unacknowledged_max = ONLINE_FACTOR * conf.OFFLINE_MAX

    def deliver_late(self, session: Session, message: OutgoingMessage) -> None:
        """Send a message that the replay has overtaken, if it is due, before all later messages.

        See `Session.deliver`.
        """
        session.hold(conf.SESSION_BYTES)
        self._hub.background.run(self._deliver_if_due(session, message))

    async def _deliver_if_due(self, session: Session, message: OutgoingMessage) -> None:
        try:
            # A message that another session has received is due only to sessions open by then.
            if await self._was_open_for(session, message.id):
                session.replay(message)
        except DatabaseError as error:
            logger.warning(
                "could not deliver message %d, retrying at the next audit: %s", message.id, error
            )
            self._hub.delivered.forget(message.id, key_group(session.key))
        finally:
            session.release()

    async def _was_open_for(self, session: Session, message_id: int) -> bool:
        """Return whether another session has received the message, and this one was open by then.

        The first session that received it counts. A receipt that waits here may be a later one: a
        session of another node was faster, and its receipt is stored.
        """
        place = (message_id, session.key, session.device)
        at = self._acknowledger.settled_at(*place)
        if at is not None and not session.joined_before(at, None):
            return False
        delivery = await find_delivery(*place)
        if delivery is not None:
            stored_at = asyncio.get_running_loop().time() - delivery.age
            return session.joined_before(stored_at, delivery.xmin)
        return at is not None

    def audience(self, session: Session) -> int:
        """Return how many sessions are in the room that op 12 leaves, a goim session's one room."""
        return self._rooms.of(session.change_room)

    def acknowledged(self, message_id: int, session: Session) -> None:
        """Record a client's acknowledgement of a message.

        It counts if the message was sent to this session. It may also count if the message was sent
        to an earlier session of the key, for as many ids as can be pending for a key. Other
        acknowledgements are dropped. So a client that sends random ids causes no queries and uses
        up no other client's share.
        """
        if session.take_acknowledged(message_id):
            self._acknowledger.acknowledged(message_id, session.key, session.id, session.device)
        elif not self._hub.live.has(message_id, ALL) and not self._acknowledger.claimed(
            message_id, session.key, session.id, session.device
        ):
            metrics.ACKS_DROPPED.inc()

    def delivered(self, message_id: int, session: Session) -> None:
        """Record that the kernel has accepted a stored message for a session."""
        if session.event_ids is not None:
            self._hub.event_ids.moved(session)
        if session.acks:
            self._acknowledger.sent(message_id, session.key, session.id, session.device)
        else:
            self._acknowledger.received(message_id, session.key, session.id, session.device)
