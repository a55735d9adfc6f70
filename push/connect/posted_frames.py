"""Handling of frames that clients of Server-Sent Events send by POST.

Any process takes the request (`push/events/views.py`) and publishes its frame to the node of the
session. Here this node passes the frame to its handler.
"""

import asyncio
import logging
from collections import deque

from push.connect import handlers
from push.metrics import definitions as metrics
from push.node.node import Node
from push.session.read_pace import TimedPace, weigh
from push.session.session import Session
from push.wire import CloseCode, Frame, Op

logger = logging.getLogger(__name__)

WAITING_MAX = 100  # frames of one session that wait for their handlers
OPENING_INTERVAL = 0.02  # seconds between two looks whether a session is open


class PostedFrames:
    """Handler of the frames of one node's sessions: in order, one at a time for each session."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: dict[str, deque[Frame]] = {}  # by session, while a task handles them

    def receive(self, session: Session, frame: Frame) -> None:
        """Handle a frame soon. Drop it if `WAITING_MAX` frames of its session wait.

        A client repeats a frame that gets no reply. Handling a frame twice has no further effect.
        """
        waiting = self._waiting.get(session.id)
        if waiting is None:
            waiting = self._waiting[session.id] = deque()
            self._node.hub.background.run(self._handle_all(session, waiting))
        if len(waiting) >= WAITING_MAX:
            metrics.UPSTREAM_DROPPED.inc()
        else:
            waiting.append(frame)

    async def _handle_all(self, session: Session, waiting: deque[Frame]) -> None:
        pace = TimedPace()
        try:
            while waiting:
                frame = self._take(session, waiting)
                if frame is None:
                    await asyncio.sleep(OPENING_INTERVAL)
                    continue
                if session.is_closed and frame.op != Op.ACK:
                    continue
                await handlers.handle(self._node, session, frame)
                pace.spend(*weigh([frame]))
                await pace.wait()
        except Exception:
            logger.exception("a handler failed")
            session.disconnect(CloseCode.INTERNAL_ERROR)
        finally:
            self._waiting.pop(session.id, None)

    def _take(self, session: Session, waiting: deque[Frame]) -> Frame | None:
        """Remove and return the next frame to handle; None while all must wait.

        Only acknowledgements are handled before the handshake has ended, as its replay may be
        long. On other transports the handshake ends before the next frame is read. A leave during
        the handshake would be undone when the handshake lets the session enter its rooms.
        """
        if not session.is_opening or session.id not in self._node.hub.sessions:
            return waiting.popleft()
        acknowledgement = next((frame for frame in waiting if frame.op == Op.ACK), None)
        if acknowledgement is not None:
            waiting.remove(acknowledgement)
        return acknowledgement


def accept_frames(node: Node) -> None:
    """Let a node's sessions receive frames through the bus."""
    if node.hub.on_frame is None:
        node.hub.on_frame = PostedFrames(node).receive
