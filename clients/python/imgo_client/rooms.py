"""The rooms that a client wants to be in, session or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from imgo_client.frames import Op


class Rooms:
    """What is wanted, what the session has asked for, and how to get from the one to the other."""

    def __init__(self, rooms: Iterable[str]) -> None:
        self._wanted = dict.fromkeys(map(check_room, rooms))
        self._asked: list[str] = []  # in the auth frame of this session
        self._others = 0  # rooms in that auth frame that are not of these
        self._single = ""  # the one that `change` leaves

    def wanted(self) -> list[str]:
        """Those it is in, or asks for in its next session."""
        return list(self._wanted)

    def ask(self, fits: Callable[[list[str]], bool], *, others: int = 0) -> list[str]:
        """Those for an auth frame, as many as it has space for; the rest of them are `arrears`.

        `others`: rooms in that frame that are not of these.
        """
        self._others = others
        asked = self.wanted()
        while asked and not fits(asked):
            # Not one of several: the server takes one that comes alone for the one to change.
            asked = asked[: len(asked) // 2] if len(asked) > 3 else []
        self._asked = asked
        return asked

    def join(self, room: str) -> None:
        """Want to be in it."""
        self._wanted[check_room(room)] = None

    def leave(self, room: str) -> None:
        """Want to be out of it."""
        self._wanted.pop(check_room(room), None)
        if self._single == room:
            self._single = ""

    def change(self, room: str) -> str:
        """Want to be in this one instead of the single one, which is returned."""
        old = self._single
        self._move(old, check_room(room) if room else "")
        return old

    def unchange(self, room: str, old: str) -> None:
        """The server has refused `change`: all as before, unless it has been changed again."""
        if self._single == room:
            self._move(room, old)

    def _move(self, old: str, new: str) -> None:
        self._wanted.pop(old, None)
        if new:
            self._wanted[new] = None
        self._single = new

    def arrears(self) -> Iterator[tuple[Op, str]]:
        """What the auth frame did not ask for, or was changed since, as requests for it."""
        asked = self._asked
        for room in dict.fromkeys((*asked, *self._wanted)):
            if (room in self._wanted) != (room in asked):
                yield (Op.JOIN if room in self._wanted else Op.LEAVE), room
        # The server takes a room that came alone for the one to change, and only then.
        alone = asked[0] if len(asked) == 1 and not self._others else ""
        if not self._single:
            self._single = alone
        elif self._single != alone:
            yield Op.CHANGE_ROOM, self._single

    def __contains__(self, room: object) -> bool:
        """Whether it is wanted."""
        return room in self._wanted


def check_room(room: object) -> str:
    """`room` if it may be one; raises ValueError."""
    if not isinstance(room, str) or not room:
        raise ValueError("a room is a non-empty string")
    return room
