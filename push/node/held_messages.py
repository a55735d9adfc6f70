"""What a hub keeps back for its groups while it is found out what has passed the node by.

Every hold has an owner, who releases it whatever happens: what is kept back for a group goes on
when the last of its owners has let go. A message that comes before the reading of the database
and one that was read belong in one order, that of their ids: see `deliver_below`.
"""

from collections.abc import Callable, Container, Iterable
from operator import attrgetter

from push.session.session import Outgoing

HELD_MAX = 1_000  # messages kept back for one group


class Hold:
    """The right of one owner to keep back what comes for some groups."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: set[str] = set()


class _Held:
    """What is kept back for one group, and by whom."""

    __slots__ = ("has_overflowed", "messages", "owners")

    def __init__(self) -> None:
        self.owners: set[Hold] = set()
        self.messages: list[Outgoing] = []
        self.has_overflowed = False


class Holds:
    """The messages that one hub keeps back, by group.

    `groups`: those that have sessions. `deliver(group, message)` delivers, without second copies.
    """

    def __init__(self, groups: Container[str], deliver: Callable[[str, Outgoing], None]) -> None:
        self._groups = groups
        self._deliver = deliver
        self._held: dict[str, _Held] = {}

    def hold(self, groups: Iterable[str]) -> Hold:
        """Keep back what comes for those of these groups that have sessions.

        The caller owns the `Hold`, and passes it to `release` whatever happens.
        """
        owner = Hold()
        for group in groups:
            if group in self._groups:
                owner.groups.add(group)
                self._held.setdefault(group, _Held()).owners.add(owner)
        return owner

    def release(self, owner: Hold, groups: Iterable[str] | None = None) -> None:
        """Deliver what was kept back for groups of this hold, unless another still holds it.

        `groups`: some of the hold's; without it all that are left.
        """
        due = owner.groups & set(owner.groups if groups is None else groups)
        owner.groups -= due
        for group in due:
            held = self._held.get(group)
            if held is None or owner not in held.owners:
                continue  # all sessions had left meanwhile: what is held now is others'
            held.owners.discard(owner)
            if not held.owners:
                del self._held[group]
                for message in held.messages:
                    self._deliver(group, message)

    def keep(self, group: str, message: Outgoing) -> bool:
        """Keep a message back, if its group is held; return whether it is."""
        held = self._held.get(group) if self._held else None
        if held is None:
            return False
        held.messages.append(message)
        if len(held.messages) > HELD_MAX:
            held.messages.clear()
            held.has_overflowed = True
        return True

    def has(self, group: str) -> bool:
        """Return whether somebody keeps back what comes for a group."""
        return group in self._held

    def deliver_below(self, group: str, message_id: int) -> None:
        """Deliver what is kept back for a group and precedes a message that is delivered next."""
        held = self._held.get(group)
        if held is None or not held.messages:
            return
        due = [message for message in held.messages if message.id < message_id]
        if due:
            held.messages = [message for message in held.messages if message.id >= message_id]
            for message in sorted(due, key=attrgetter("id")):
                self._deliver(group, message)

    def take_overflow(self, group: str) -> bool:
        """Return whether more came for a group than was kept back, since this was asked last.

        Then all of it was dropped here, and is to be read from the database again.
        """
        held = self._held.get(group)
        if held is None or not held.has_overflowed:
            return False
        held.has_overflowed = False
        return True

    def forget(self, group: str) -> None:
        """Drop what is kept back for a group that has no sessions any more."""
        self._held.pop(group, None)
