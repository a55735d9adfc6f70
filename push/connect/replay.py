"""What a session that connects is sent before anything live: its key's pending messages.

It is read a page at a time, at the client's pace, in order of id. What the layer has brought
meanwhile belongs into the same order.
"""

import time

from imgo_site.conf import conf
from imgo_site.database_threads import session_threads
from offline import replay
from offline.node_io import history_pages, pending_pages
from offline.values import Page, PendingMessage
from push.connect.handshake_deadline import HandshakeDeadline
from push.node.node import Node
from push.session.session import Outgoing, Session


class Replay:
    """The pages of one session.

    `since`: only messages above that id, and those too that other sessions of the key have had;
    0 for what is pending.
    """

    def __init__(self, node: Node, session: Session, since: int = 0) -> None:
        self._node = node
        self._session = session
        self._since = since
        self._after = 0
        self._reads_again = False  # what came during a gap, after the last page was read
        self._is_over = False  # the last page has been read

    async def next_page(self) -> list[PendingMessage] | None:
        """Read the next page; None when there is none. Raises what the database raises.

        A session that is behind, because messages may have passed this node by after its last
        page was read, reads from the beginning, with what others have had since it joined.
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
            session.snapshot = page[0].snapshot if page else None
        self._is_over = len(page) < conf.REPLAY_PAGE
        if page:
            self._after = page[-1].id
        return page

    async def _read(self) -> list[PendingMessage]:
        key = self._session.key
        if self._reads_again:
            return await self._read_missed((key, self._after))
        if self._since:
            return await history_pages.get((key, self._after, self._since)) or []
        return await pending_pages.get((key, self._after)) or []

    async def _read_missed(self, ask: Page) -> list[PendingMessage]:
        """What is pending, and what others have had since this session joined."""
        age = time.monotonic() - self._session.joined
        missed = replay.read_missed
        found = await session_threads.run(missed, [ask], conf.REPLAY_PAGE, age)
        return found[ask]

    async def write(self, page: list[PendingMessage], deadline: HandshakeDeadline) -> None:
        """Write a page, and between its messages what was held back, in order of id.

        The next page is read when the client has taken this one.
        """
        session, node = self._session, self._node
        for found in page:
            if session.link.waiting:
                await self._wait_for_reader(deadline)
            if session.is_closed:
                return
            session.replay_held(found.id)
            if self._is_owed(found) and session.takes(found.op):
                node.hub.replayed.add(found.id, session.id)
                message = Outgoing(found.id, found.op, found.body, found.is_json, session.key)
                session.replay(message)
        if not self._is_over:
            await self._wait_for_reader(deadline)

    def _is_owed(self, found: PendingMessage) -> bool:
        """Return whether no session of this node had the message before this one joined."""
        if self._since or self._reads_again:
            return True
        at = self._node.acknowledger.settled_at(found.id, self._session.key)
        return at is None or at >= self._session.joined

    async def _wait_for_reader(self, deadline: HandshakeDeadline) -> None:
        with deadline.reading():
            await self._session.link.drained()
