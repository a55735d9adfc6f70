"""Replay: sends a connecting session its key's pending messages, before any live message.

Pages are read one at a time, in order of id. The next page is read when the client has read the
last one. Live messages that arrive meanwhile are held by the session. Those for its key are sent
between the replayed ones, in the same order of id.

The node may miss messages while it has no connection to the layer. It then marks connecting
sessions as behind (`Session.is_behind`). Such a session replays from the beginning after its last
page; messages that it has sent already are skipped.
"""

import time

from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from offline import key_messages
from offline.node_io import (
    DeviceRead,
    ResumedPage,
    device_pages,
    history_pages,
    pending_pages,
    resumed_pages,
)
from offline.values import DevicePage, MessagePage, Page, PendingMessage
from push.connect.handshake_deadline import HandshakeDeadline
from push.node.node import Node
from push.session.outgoing import OutgoingMessage
from push.session.session import Session

# Seconds that are added to the time since a client had all: for the error of the node's clock, and
# for receipts that are written late.
RESUME_MARGIN = 2.0


class Replay:
    """Replay of one session.

    `since`: send all messages with ids above this, also those that other sessions of the key have
    received; 0 for only the pending messages.
    `resumed`: send also the messages that sessions of the key have received since then: Unix time
    by the database's clock, seconds; None for only the pending messages.

    For a session with a device, these are the messages of its device.
    """

    def __init__(
        self, node: Node, session: Session, since: int = 0, resumed: float | None = None
    ) -> None:
        self._node = node
        self._session = session
        self._since = since
        self._resumed = resumed
        self._after = 0
        self._reads_again = False  # after a gap: from the beginning
        self._is_over = False  # the last page has been read

    async def next_page(self) -> MessagePage | None:
        """Read and return the next page; None if there is none. Raises what the database raises.

        If the session is behind after its last page, read from the beginning. Then include messages
        that other sessions of the key have received since this one joined.
        """
        session = self._session
        if self._is_over:
            if not session.is_behind:
                return None
            self._after, self._reads_again = 0, True
        session.is_behind = False
        page = await self._read()
        if not session.joined:
            session.joined = time.monotonic()  # the event loop's clock
            session.snapshot = page.snapshot
        self._is_over = len(page) < conf.REPLAY_PAGE
        if page:
            self._after = page[-1].id
        return page

    async def _read(self) -> MessagePage:
        page = await self._load()
        assert page is not None  # the loaders return one for each that is asked for
        return page

    async def _load(self) -> MessagePage | None:
        key = self._session.key
        if self._session.device is not None:
            return await device_pages.get(self._read_of_device(self._session.device))
        if self._reads_again:
            return await self._read_missed((key, self._after))
        if self._resumed is not None:
            return await resumed_pages.get(ResumedPage(key, self._after, self._age()))
        if self._since:
            return await history_pages.get((key, self._after, self._since))
        return await pending_pages.get((key, self._after))

    def _read_of_device(self, device: str) -> DeviceRead:
        page = DevicePage(self._session.key, self._after, 0, (device,))
        if self._reads_again:
            return DeviceRead(page, "lately", time.monotonic() - self._session.joined)
        if self._resumed is not None:
            return DeviceRead(page, "lately", self._age())
        if self._since:
            return DeviceRead(page._replace(since=self._since), "history")
        return DeviceRead(page, "pending")

    def _age(self) -> float:
        """Return how long ago the client had all that was sent to it, with a margin, seconds."""
        assert self._resumed is not None
        age = self._node.clock.now() - self._resumed
        return min(max(age, 0.0), conf.RECORD_KEEP) + RESUME_MARGIN

    async def _read_missed(self, page: Page) -> MessagePage:
        """Read pending messages, and those that others have received since this session joined."""
        age = time.monotonic() - self._session.joined
        read = key_messages.read_missed
        missed = await session_threads.run(read, [page], conf.REPLAY_PAGE, age)
        return missed[page]

    async def write(self, page: MessagePage, deadline: HandshakeDeadline) -> None:
        """Write a page, and between its messages the held ones, in order of id.

        If further pages may follow, return when the client has read this one.
        """
        session, node = self._session, self._node
        for pending in page:
            if session.link.waiting:
                await self._wait_for_reader(deadline)
            if session.is_closed:
                return
            session.replay_held(pending.id)
            if self._is_due(pending) and session.accepts_op(pending.op):
                node.hub.replayed.add(pending.id, session.id)
                message = OutgoingMessage(
                    pending.id, pending.op, pending.body, pending.is_json, session.key
                )
                session.replay(message)
            else:
                session.skip(pending.id)
        if not self._is_over:
            await self._wait_for_reader(deadline)

    def _is_due(self, pending: PendingMessage) -> bool:
        """Return whether a message that was read is for this session.

        It is not if it excludes the session, or if a session of this node had received it before
        this session joined. The latter may not be stored yet. After a gap it is not if any session
        had received it by then. With `since` every message read is due. A client that comes back is
        due what was received since it had all.
        """
        if self._session.id in pending.exclude.split(","):
            return False
        if self._reads_again:
            if pending.had is None:
                return True
            # At the latest: the snapshot tells what was stored before this session joined.
            had_at = time.monotonic() - pending.had
            return self._session.joined_before(had_at, pending.had_xmin)
        if self._resumed is not None:  # others may have been read with it
            return pending.had is None or pending.had <= self._age()
        if self._since:
            return True
        key, device = self._session.key, self._session.device
        at = self._node.acknowledger.settled_at(pending.id, key, device)
        return at is None or at >= self._session.joined

    async def _wait_for_reader(self, deadline: HandshakeDeadline) -> None:
        with deadline.reading():
            await self._session.link.drained()
