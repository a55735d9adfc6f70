"""Runs: consecutive messages of a stream, written at once to each session that recovers them.

After a restart thousands of sessions recover the same messages of a room. They share one run of the
stream's tail, and with it the bytes.
"""

from collections.abc import Iterable

from push.node.room_stream import RoomStream
from push.session.outgoing import OutgoingMessage, Run

RUN_BYTES = 65_536  # bytes of bodies in a run; the client must have read it before the next one
RUNS_MAX = 64  # runs of one node that are kept for further sessions


class Runs:
    """Runs of the tails of one node's streams that sessions have recovered lately.

    The owner must call `clear` when a message of a tail has changed.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str, int, int], Run] = {}

    def after(self, stream: RoomStream, offset: int, last: int) -> Run | None:
        """Return the messages above an offset that the tail covers.

        `last`: the highest offset that a message may have.

        Returns None if the first one is missing.
        """
        name = (stream.group, stream.epoch, offset, last)
        run = self._runs.get(name)
        if run is None:
            run = run_of(stream.after(offset), offset, last)
            if run is not None:
                if len(self._runs) >= RUNS_MAX:
                    self._runs.clear()
                self._runs[name] = run
        return run

    def clear(self) -> None:
        """Forget all runs."""
        self._runs.clear()


def run_of(messages: Iterable[OutgoingMessage], offset: int, last: int) -> Run | None:
    """Return messages up to the first gap in their offsets, or up to `RUN_BYTES`.

    `offset`: the one before the first message. `last`: the highest that a message may have.

    Returns None if the first message is missing.
    """
    present: list[OutgoingMessage] = []
    end, size = offset, 0
    for message in messages:
        if message.offset != end + 1 or message.offset > last or size > RUN_BYTES:
            break
        end = message.offset
        size += len(message)
        if not message.is_tombstone:
            present.append(message)
    return Run(present, end) if end > offset else None
