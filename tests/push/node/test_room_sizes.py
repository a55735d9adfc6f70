"""The sizes of the rooms of goim's clients: of this node now, of others as of the last look."""

import pytest

from imgo_site.errors import Unavailable
from push.bus.group_names import room_group
from push.node import room_sizes as module
from push.node.room_sizes import RoomSizes


class Rooms:
    """A hub with sessions in rooms, and a registry that knows of other nodes."""

    def __init__(self) -> None:
        self.groups: dict[str, set[str]] = {}
        self.elsewhere: dict[str, int] = {}
        self.looks: list[list[str]] = []

    def put(self, room: str, *sessions: str) -> None:
        self.groups[room_group(room)] = set(sessions)

    def sizes(self, rooms: list[str], besides: str) -> list[int]:
        assert besides == "n1"
        self.looks.append(rooms)
        if self.elsewhere.get("is away"):
            raise Unavailable("away")
        return [self.elsewhere.get(room, 0) for room in rooms]


@pytest.fixture
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture
def audience(rooms) -> RoomSizes:
    return RoomSizes(rooms, rooms, "n1")


async def test_own_sessions_count_at_once_and_other_nodes_after_a_query(rooms, audience):
    rooms.put("a", "s1", "s2")
    rooms.elsewhere = {"a": 40}
    assert (audience.of("a"), audience.of("nobody's"), audience.of("")) == (2, 0, 0)
    await audience.refresh()
    assert audience.of("a") == 42
    rooms.put("a", "s1")
    assert audience.of("a") == 41


async def test_a_look_that_fails_leaves_the_numbers(rooms, audience):
    rooms.put("a", "s1")
    audience.of("a")
    rooms.elsewhere = {"a": 40}
    await audience.refresh()
    rooms.elsewhere["is away"] = 1
    with pytest.raises(Unavailable):
        await audience.refresh()
    assert audience.of("a") == 41


async def test_only_rooms_of_this_node_that_were_asked_for_are_looked_at(rooms, audience):
    rooms.put("a", "s1")
    rooms.put("b", "s1")
    audience.of("a")
    audience.of("gone")
    await audience.refresh()
    await audience.refresh()
    rooms.groups.clear()
    await audience.refresh()
    assert rooms.looks == [["a"], ["a"]]


async def test_many_rooms_take_turns(rooms, audience, monkeypatch):
    monkeypatch.setattr(module, "ROOMS_MAX", 2)
    for room in "abc":
        rooms.put(room, "s1")
        audience.of(room)
    for _ in range(3):
        await audience.refresh()
    assert rooms.looks == [["a", "b"], ["c", "a"], ["b", "c"]]
