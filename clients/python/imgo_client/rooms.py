"""Rooms of a client that have no `Room`: those to be in, and those of the current session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from imgo_client.frames import Op


class Rooms:
    """The rooms that the user has chosen, and the requests that bring a session into them."""

    def __init__(self, rooms: Iterable[str]) -> None:
        self._names = dict.fromkeys(map(check_room, rooms))
        self._requested: list[str] = []  # in the auth frame of this session
        self._others = 0  # number of other rooms in that auth frame
        self._single = ""  # the room that the next `change` leaves; "" for none

    def names(self) -> list[str]:
        """Return the rooms that the session is in, or that the next session will request."""
        return list(self._names)

    def ask(self, fits: Callable[[list[str]], bool], *, others: int = 0) -> list[str]:
        """Return the rooms for an auth frame, as many as fit. The others follow as `arrears`.

        `fits`: returns whether the frame has space for these rooms. `others`: number of other rooms
        in the frame.
        """
        self._others = others
        requested = self.names()
        while requested and not fits(requested):
            # Never one of several: the server takes a single room for that of `change`.
            requested = requested[: len(requested) // 2] if len(requested) > 3 else []
        self._requested = requested
        return requested

    def join(self, room: str) -> None:
        """Add a room."""
        self._names[check_room(room)] = None

    def leave(self, room: str) -> None:
        """Remove a room."""
        self._names.pop(check_room(room), None)
        if self._single == room:
            self._single = ""

    def change(self, room: str) -> str:
        """Replace the room of the last `change` by this one, and return the replaced room."""
        old = self._single
        self._move(old, check_room(room) if room else "")
        return old

    def unchange(self, room: str, old: str) -> None:
        """Undo a `change` that the server has refused, unless there was another one since."""
        if self._single == room:
            self._move(room, old)

    def _move(self, old: str, new: str) -> None:
        self._names.pop(old, None)
        if new:
            self._names[new] = None
        self._single = new

    def arrears(self) -> Iterator[tuple[Op, str]]:
        """Yield requests for changes since the auth frame, and rooms that did not fit into it."""
        requested = self._requested
        for room in dict.fromkeys((*requested, *self._names)):
            if (room in self._names) != (room in requested):
                yield (Op.JOIN if room in self._names else Op.LEAVE), room
        # The server takes the only room of an auth frame for that of `change`.
        alone = requested[0] if len(requested) == 1 and not self._others else ""
        if not self._single:
            self._single = alone
        elif self._single != alone:
            yield Op.CHANGE_ROOM, self._single

    def __contains__(self, room: object) -> bool:
        """Return whether the room was chosen."""
        return room in self._names


def check_room(room: object) -> str:
    """Return `room`. Raises ValueError unless it is a non-empty string."""
    if not isinstance(room, str) or not room:
        raise ValueError("a room is a non-empty string")
    return room
