"""Live messages that a hub holds while a node reads missed messages from the database.

A node that may have missed messages of a key reads the key's pending messages; see
`push/node/missed_messages.py`. Live messages of the key's group are held meanwhile. Held messages
and those read from the database are delivered in one order, that of their ids; see `deliver_below`.

Several owners may hold a group at the same time. Each owner must release its hold in every case.
The held messages of a group are delivered when its last hold is released.
"""

from collections.abc import Callable, Container, Iterable
from operator import attrgetter

from push.session.outgoing import OutgoingMessage

HELD_MAX = 1_000  # messages held for one group; one more drops them all, see `take_overflow`


class HoldToken:
    """One owner's hold on some groups."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: set[str] = set()


class _Held:
    """The messages held for one group, and the holds on it."""

    __slots__ = ("has_overflowed", "messages", "owners")

    def __init__(self) -> None:
        self.owners: set[HoldToken] = set()
        self.messages: list[OutgoingMessage] = []
        self.has_overflowed = False


class HoldRegistry:
    """Held messages of one hub, by group.

    `groups`: the groups that have sessions.
    `deliver(group, message)`: delivers a message unless it is a duplicate.
    """

    def __init__(
        self, groups: Container[str], deliver: Callable[[str, OutgoingMessage], None]
    ) -> None:
        self._groups = groups
        self._deliver = deliver
        self._held: dict[str, _Held] = {}

    def hold(self, groups: Iterable[str]) -> HoldToken:
        """Hold the messages of these groups, without those that have no sessions.

        The caller owns the returned `HoldToken` and must pass it to `release` in every case.
        """
        owner = HoldToken()
        for group in groups:
            if group in self._groups:
                owner.groups.add(group)
                self._held.setdefault(group, _Held()).owners.add(owner)
        return owner

    def release(self, owner: HoldToken, groups: Iterable[str] | None = None) -> None:
        """End a hold on groups, and deliver the held messages of those without another hold.

        `groups`: groups to release; None for all that the hold still has.
        """
        due = owner.groups & set(owner.groups if groups is None else groups)
        owner.groups -= due
        for group in due:
            held = self._held.get(group)
            if held is None or owner not in held.owners:
                continue  # all sessions left meanwhile; a present hold is another owner's
            held.owners.discard(owner)
            if not held.owners:
                del self._held[group]
                for message in held.messages:
                    self._deliver(group, message)

    def keep(self, group: str, message: OutgoingMessage) -> bool:
        """Hold a message if its group is held; return whether it is."""
        held = self._held.get(group) if self._held else None
        if held is None:
            return False
        held.messages.append(message)
        if len(held.messages) > HELD_MAX:
            held.messages.clear()
            held.has_overflowed = True
        return True

    def has(self, group: str) -> bool:
        """Return whether a group is held."""
        return group in self._held

    def deliver_below(self, group: str, message_id: int) -> None:
        """Deliver a group's held messages with lower ids, before the caller delivers this one."""
        held = self._held.get(group)
        if held is None or not held.messages:
            return
        due = [message for message in held.messages if message.id < message_id]
        if due:
            held.messages = [message for message in held.messages if message.id >= message_id]
            for message in sorted(due, key=attrgetter("id")):
                self._deliver(group, message)

    def take_overflow(self, group: str) -> bool:
        """Return whether held messages of a group were dropped since the last call.

        That happens above `HELD_MAX` messages. The caller must read them from the database.
        """
        held = self._held.get(group)
        if held is None or not held.has_overflowed:
            return False
        held.has_overflowed = False
        return True

    def forget(self, group: str) -> None:
        """Discard the holds and the held messages of a group that has no sessions left."""
        self._held.pop(group, None)
