"""What a client of Server-Sent Events keeps from one session to the next: the id of its last event.

The id stands for the position of a session: in the messages to its key, and in the streams of the
rooms that its request named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from imgo_client.streams import Stream


class Resumption:
    """The last id, and which streams it covers."""

    def __init__(self) -> None:
        self._id = ""
        self._covered: Collection[Stream] = ()
        self._asked: Collection[Stream] = ()

    def begin(self) -> None:
        """Forget all: the client begins anew."""
        self._id = ""
        self._covered = self._asked = ()

    def may_ask(self, stream: Stream, about: Mapping[str, Any]) -> bool:
        """Whether the request for events can name a stream's room.

        It has no positions, so it does for streams that the id covers, or that need no position in
        a request without an id. Others are joined after it.
        """
        if self.id_for(about):
            return stream in self._covered
        return not stream.request

    def asks(self, streams: Collection[Stream]) -> None:
        """Take note of the streams whose rooms the request names."""
        self._asked = streams

    def id_for(self, about: Mapping[str, Any]) -> str:
        """The id to resume behind; "" for none. A `since` says it more exactly, and excludes it."""
        return "" if about.get("since") else self._id

    def handled(self, event_id: str) -> None:
        """All that came before this id has been handled."""
        self._id = event_id
        self._covered = self._asked
