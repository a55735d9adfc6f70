"""The id of the last event, which a client of Server-Sent Events keeps between sessions.

The id stands for the position of a session: in the messages to its key, and in the streams of the
rooms that its request named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from imgo_client.streams import Stream


class Resumption:
    """The last id, and the streams whose positions it contains."""

    def __init__(self) -> None:
        self._id = ""
        self._covered: Collection[Stream] = ()
        self._asked: Collection[Stream] = ()

    def begin(self) -> None:
        """Forget the id, because the client starts without its earlier state."""
        self._id = ""
        self._covered = self._asked = ()

    def may_ask(self, stream: Stream, about: Mapping[str, Any]) -> bool:
        """Return whether the request for events can name a stream's room.

        The request carries no positions. So it can name streams that the id covers. A request
        without an id can name streams that need no position. Other rooms are joined later.
        """
        if self.id_for(about):
            return stream in self._covered
        return not stream.request

    def asks(self, streams: Collection[Stream]) -> None:
        """Record the streams whose rooms the request names."""
        self._asked = streams

    def id_for(self, about: Mapping[str, Any]) -> str:
        """Return the id to resume behind; "" for none. A `since` replaces it."""
        return "" if about.get("since") else self._id

    def handled(self, event_id: str) -> None:
        """Record that all events up to this id have been handled."""
        self._id = event_id
        self._covered = self._asked
