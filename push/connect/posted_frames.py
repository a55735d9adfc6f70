"""Handling of frames that clients of Server-Sent Events send by POST.

Any process takes the request (`push/events/views.py`) and publishes its frame to the node of the
session. Here this node passes the frame to its handler.
"""

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
                frame = waiting.popleft()
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


def accept_frames(node: Node) -> None:
    """Let a node's sessions receive frames through the bus."""
    if node.hub.on_frame is None:
        node.hub.on_frame = PostedFrames(node).receive
