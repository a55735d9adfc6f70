"""Sessions in rooms whose occupation is an event, counted by a running node."""

from collections import Counter
from typing import Any

import pytest

from accounts.auth_body import RoomRequest
from imgo_site.errors import Unavailable
from push.online.room_visits import RoomVisits
from push.webhooks.endpoints import ROOM_MARK
from tests.push.sessions import admit


class Sessions(Counter[str]):
    """In the place of `OnlineKeys`: sessions by room."""

    def opened(self, name: str, _: object) -> None:
        self[name.removeprefix(ROOM_MARK)] += 1

    def closed(self, name: str, _: object) -> None:
        self[name.removeprefix(ROOM_MARK)] -= 1

    @property
    def now(self) -> dict[str, int]:
        return {room: count for room, count in self.items() if count}


@pytest.fixture
def sessions(node, imgo) -> Sessions:
    imgo(ROOMS={"chat-*": {"history": 10}}, PARTITIONS=1)
    found: Any = Sessions()
    node.membership.room_visits = RoomVisits(found, "n1", node.clock.now)
    return found


async def test_session_counts_once_in_each_room_until_it_leaves_or_ends(node, sessions):
    one, two = await admit(node, "u1", "a"), await admit(node, "u1", "a", "b")
    assert sessions.now == {"a": 2, "b": 1}
    await node.membership.join(one, "c")
    await node.membership.join(one, "c")
    await node.membership.join_stream(two, "chat-1", RoomRequest(), lambda _: None)
    assert sessions.now == {"a": 2, "b": 1, "c": 1, "chat-1": 1}
    assert {name for name, _ in node.membership.room_visits.openings()} == {
        ROOM_MARK + room for room in sessions.now
    }
    await node.membership.leave(one, "a")
    await node.membership.leave(one, "a")
    assert sessions.now == {"a": 1, "b": 1, "c": 1, "chat-1": 1}
    await node.dismiss(two)
    await node.membership.leave(two, "b")
    assert sessions.now == {"c": 1}
    await node.dismiss(one)
    await node.membership.join(one, "d")
    assert (sessions.now, list(node.membership.room_visits.openings())) == ({}, [])


async def test_join_that_fails_does_not_occupy_the_room(node, sessions, monkeypatch):
    session = await admit(node, "u1")

    async def fail(*_: object) -> None:
        raise Unavailable("Redis is away.")

    monkeypatch.setattr(node.registry, "join", fail)
    with pytest.raises(Unavailable):
        await node.membership.join(session, "a")
    with pytest.raises(Unavailable):
        await node.membership.join_stream(session, "chat-1", RoomRequest(), lambda _: None)
    assert sessions.now == {}
