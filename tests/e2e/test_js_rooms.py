"""Rooms with history and the JavaScript client in Node against real servers: kills and reloads."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import eventually

from .harness import System
from .js_page import Page
from .rooms import FEW, SETTINGS, change_epoch, new_kept_room, push_to
from .world import World, new_key

PUSHES = 300

Enter = Callable[[System], Awaitable[World]]
OpenPage = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="module")
def keeping(make_embedded: Callable[..., System]) -> Iterator[System]:
    """A server whose rooms keep messages."""
    with make_embedded(**SETTINGS) as system:
        yield system


@pytest.fixture
async def open_page(tmp_path: Path) -> AsyncIterator[OpenPage]:
    """Opens a page with rooms: `joins` has the options of each."""
    async with AsyncExitStack() as stack:

        async def open_one(world: World, **options: Any) -> Page:
            url = f"ws://127.0.0.1:{world.node().http_port}/sub"
            options = {"token": await world.token(new_key()), **options}
            page = Page(url, tmp_path / "tab", [], **options)
            return await stack.enter_async_context(page)

        yield open_one


async def push_slowly(world: World, room: str) -> None:
    """All pushes, over some seconds; the room keeps more."""
    for number in range(PUSHES):
        await push_to(world, room, number)
        await asyncio.sleep(0.03)  # a pace


async def wait_for_room(page: Page, room: str, state: str = "joined") -> None:
    """Wait until the page's room is in a state."""
    await eventually(
        lambda: (
            [event[1] for event in page.of_room(room) if event[0] == "room state"][-1:] == [state]
        )
    )


async def position_of(world: World, room: str, offset: int) -> dict[str, Any]:
    """The room's position, as a backend gets it, when as many messages are in the room."""

    async def position() -> dict[str, Any] | None:
        state: dict[str, Any] = await world.api.get(f"/api/v1/rooms/{room}/position")
        return state if state["offset"] == offset else None

    found = await eventually(position)
    assert found is not None
    return found


def recoveries(page: Page, room: str) -> list[bool]:
    """What the server said to each position."""
    return [event[1] for event in page.of_room(room) if event[0] == "recovered"]


@pytest.mark.long
async def test_over_kills_and_reloads_a_message_of_a_room_is_shown_once(
    make_cluster: Callable[..., System],
    own_system: Callable[[System], System],
    enter: Enter,
    open_page: OpenPage,
) -> None:
    world = await enter(own_system(make_cluster(nodes=1, **SETTINGS)))
    room = new_kept_room()
    page = await open_page(world, joins={room: {"persist": True}})
    await wait_for_room(page, room)
    pushing = asyncio.create_task(push_slowly(world, room))
    await eventually(lambda: len(page.bodies(room)) > 20)
    world.node().kill()
    await world.node().start_beside()
    count = len(page.bodies(room))
    await eventually(lambda: len(page.bodies(room)) > count)
    await page.reload()
    world.node().signal(signal.SIGTERM)
    await asyncio.to_thread(world.node().wait_until_ended)
    await page.reload()
    await world.node().start_beside()
    await pushing
    await eventually(lambda: len(page.bodies(room)) >= PUSHES)
    offsets = [event[2] for event in page.of_room(room) if event[0] == "room message"]
    assert offsets == list(range(1, PUSHES + 1))
    assert len(recoveries(page, room)) >= 2
    assert all(recoveries(page, room))
    assert [event for event in page.told if event[0] in {"error", "gap"}] == []


async def test_without_persist_a_reload_begins_anew_and_rewinds(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    await push_to(world, room, *range(5))
    page = await open_page(world, joins={room: {"rewind": 2}})
    await eventually(lambda: page.bodies(room) == [3, 4])
    await page.reload()
    await eventually(lambda: page.bodies(room) == [3, 4, 3, 4])
    assert recoveries(page, room) == []


async def test_a_room_with_one_message_shows_the_last_value(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room("last")
    await push_to(world, room, "old", "new")
    page = await open_page(world)
    await page.wait_for("open")
    assert await page.ask("room", room, {"rewind": 1}) == ["answer", None]
    await eventually(lambda: page.bodies(room) == ["new"])
    await push_to(world, room, "newer")
    await eventually(lambda: page.bodies(room) == ["new", "newer"])


async def test_more_than_is_kept_is_told_and_live_messages_follow(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room("short")
    page = await open_page(world, joins={room: {}})
    await wait_for_room(page, room)
    await page.ask("close")
    await push_to(world, room, *range(FEW + 1))
    await page.ask("connect")
    await eventually(lambda: recoveries(page, room) == [False])
    await push_to(world, room, "live")
    await eventually(lambda: page.bodies(room) == ["live"])
    (event,) = [event for event in page.of_room(room) if event[0] == "recovered"]
    assert event[2]["offset"] == FEW + 1


async def test_a_gap_in_an_open_session_is_told(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    page = await open_page(world, joins={room: {"persist": True}})
    await wait_for_room(page, room)
    await push_to(world, room, "a")
    await eventually(lambda: page.bodies(room) == ["a"])
    change_epoch(world.system, room)
    await push_to(world, room, "b")  # is found out with it, and may be part of the gap

    def gaps() -> list[Any]:
        return [event[1] for event in page.of_room(room) if event[0] == "gap"]

    await eventually(gaps)
    await push_to(world, room, "c")
    await eventually(lambda: page.bodies(room)[-1:] == ["c"])
    assert [position["epoch"] for position in gaps()] == ["restored"]
    await page.reload()
    await eventually(lambda: recoveries(page, room) == [True])


async def test_a_room_that_was_emptied_meanwhile_tells_its_value_by_history(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    page = await open_page(world, joins={room: {}})
    await wait_for_room(page, room)
    await page.ask("close")
    await push_to(world, room, "lost")
    await position_of(world, room, 1)
    await world.api.http.delete(f"/api/v1/rooms/{room}/messages")
    await push_to(world, room, "kept")
    await position_of(world, room, 2)
    await page.ask("connect")
    await eventually(lambda: recoveries(page, room) == [False])
    _, history = await page.ask("in", room, "history", {"limit": 1})
    assert [message["body"] for message in history["messages"]] == ["kept"]
    assert page.bodies(room) == []


async def test_a_page_goes_on_from_the_position_of_the_state_it_loaded(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    await push_to(world, room, "in the state")
    position = await position_of(world, room, 1)
    await push_to(world, room, "behind it")
    page = await open_page(world, joins={room: {"position": position}})
    await eventually(lambda: page.bodies(room) == ["behind it"])
    assert recoveries(page, room) == [True]


async def test_history_is_read_page_by_page_and_only_in_the_room(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    await push_to(world, room, *range(5))
    page = await open_page(world, joins={room: {}})
    await wait_for_room(page, room)
    _, history = await page.ask("in", room, "history", {"limit": 2})
    assert [message["body"] for message in history["messages"]] == [4, 3]
    assert (history["more"], history["offset"]) == (True, 5)
    _, history = await page.ask("in", room, "history", {"before": 4, "order": "oldest"})
    assert [message["offset"] for message in history["messages"]] == [1, 2, 3]
    assert await page.ask("in", room, "leave") == ["answer", True]
    refused = ["refused", "ImgoError", "room_forbidden"]
    assert (await page.ask("in", room, "history", {}))[:3] == refused


async def test_a_room_that_may_not_be_joined_is_refused(
    keeping: System, enter: Enter, open_page: OpenPage
) -> None:
    world = await enter(keeping)
    room = new_kept_room()
    token = await world.api.make_token(new_key(), rooms=["chat-of-others"])
    page = await open_page(world, token=token)
    await page.wait_for("open")
    assert await page.ask("room", room, {}) == ["answer", None]
    await wait_for_room(page, room, "refused")
    assert page.of_room(room) == [["room state", "refused", "room_forbidden"]]
    assert page.state == "open"
