"""A page with the client on it, put there by `{% imgo %}`: restarts, reloads, sleep, several tabs.

The page keeps what it has shown over reloads, so whatever came twice stands there twice.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from playwright.async_api import Browser, expect

from tests import eventually
from tests.e2e.harness import Cluster, Embedded, System
from tests.e2e.world import World
from tests.services import process_state

from .conftest import SITE
from .visitors import SERVER_AWAY, Inbox, Visitor, new_text, numbers

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]
Enter = Callable[[System], Awaitable[World]]

PACE = 0.02  # seconds between two pushes


async def push_numbers(world: World, inbox: Inbox, first: int, last: int) -> None:
    """Push them to whoever is signed in, in order."""
    for number in range(first, last + 1):
        await world.api.push({"key": inbox.key}, number)


@asynccontextmanager
async def pushing(world: World, inbox: Inbox) -> AsyncIterator[None]:
    """Push numbers from 1 on, all the while; then wait until each is shown, once and in order."""
    last = 0
    is_over = asyncio.Event()

    async def push() -> None:
        nonlocal last
        while not is_over.is_set():
            last += 1
            await world.api.push({"key": inbox.key}, last)
            await asyncio.sleep(PACE)

    task = asyncio.create_task(push())
    try:
        yield
    finally:
        is_over.set()
        await task
    await expect(inbox.messages).to_have_text(numbers(1, last))
    await world.wait_for_pending(inbox.key, 0)


def tell_all(processes: list[int], number: signal.Signals) -> None:
    """Send a signal to those that there are; a browser's helpers come and go."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def states_of(processes: list[int]) -> set[str]:
    """The letters that the kernel gives the states of those that there are."""
    found = set()
    for process in processes:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add(process_state(process))
    return found


@asynccontextmanager
async def asleep(browser: Browser) -> AsyncIterator[None]:
    """The browser's processes do not run, as on a computer that sleeps."""
    devtools = await browser.new_browser_cdp_session()
    found = await devtools.send("SystemInfo.getProcessInfo")
    processes = [process["id"] for process in found["processInfo"]]
    try:
        tell_all(processes, signal.SIGSTOP)
        await eventually(lambda: states_of(processes) == {"T"})
        yield
    finally:
        tell_all(processes, signal.SIGCONT)
    await devtools.detach()


async def test_who_is_not_signed_in_has_no_client(site: Embedded, visit: Visit) -> None:
    visitor = await visit(site)
    page = await visitor.open("/inbox")
    await expect(page.get_by_role("heading")).to_have_text("Inbox of nobody")
    assert await page.locator("script[data-imgo-url]").count() == 0
    assert await page.evaluate("typeof imgo") == "undefined"


async def test_one_line_in_a_template_connects_who_is_signed_in(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world = await enter(site)
    alice, bob = [await Inbox.enter(await visit(site), name) for name in ("alice", "bob")]
    assert alice.key != bob.key
    text, to_all = new_text(), new_text()
    await world.api.push({"key": alice.key}, text)
    await expect(alice.messages).to_have_text([text])
    await world.api.push({"room": "lobby"}, to_all)
    await expect(alice.messages).to_have_text([text, to_all])
    await expect(bob.messages).to_have_text([to_all])


async def test_who_signs_out_gets_nothing_any_more(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world = await enter(site)
    inbox = await Inbox.enter(await visit(site), "leaver")
    await push_numbers(world, inbox, 1, 1)
    await world.wait_for_pending(inbox.key, 0)
    await inbox.page.goto("/leave")
    await world.wait_for_sessions(inbox.key, 0)
    await push_numbers(world, inbox, 2, 2)
    await world.wait_for_pending(inbox.key, 1)


@pytest.mark.long
async def test_restarted_or_killed_server_loses_nothing_and_doubles_nothing(
    make_cluster: Callable[..., Cluster],
    own_system: Callable[[System], System],
    visit: Visit,
    enter: Enter,
) -> None:
    system = own_system(make_cluster(nodes=1, **SITE))
    world, node, visitor = await enter(system), system.nodes[0], await visit(system)
    visitor.expect_complaints(*SERVER_AWAY)
    inbox = await Inbox.enter(visitor, "dora")
    async with pushing(world, inbox):
        await inbox.shows_more()
        node.signal(signal.SIGTERM)
        await asyncio.to_thread(node.wait_until_ended)
        await expect(inbox.state).not_to_have_text("open")
        await node.start_beside()
        await inbox.shows_more()
        node.kill()
        await expect(inbox.state).not_to_have_text("open")
        await node.start_beside()
        await inbox.shows_more()


async def test_a_reload_in_the_middle_shows_nothing_twice_and_misses_nothing(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world = await enter(site)
    inbox = await Inbox.enter(await visit(site), "eve")
    async with pushing(world, inbox):
        for _ in range(4):
            await inbox.shows_more()
            await inbox.page.reload()
        await inbox.shows_more()
    shown = await inbox.messages.all_inner_texts()
    await inbox.page.reload()
    await expect(inbox.state).to_have_text("open")
    await world.api.push({"key": inbox.key}, "the end")
    await expect(inbox.messages).to_have_text([*shown, "the end"])


async def test_client_without_a_network_says_so_and_is_back_at_once_with_one(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world, visitor = await enter(site), await visit(site)
    inbox = await Inbox.enter(visitor, "frank")
    await push_numbers(world, inbox, 1, 3)
    await expect(inbox.messages).to_have_text(numbers(1, 3))
    await visitor.context.set_offline(True)
    await expect(inbox.state).to_have_text("offline")
    await push_numbers(world, inbox, 4, 6)
    await visitor.context.set_offline(False)
    await expect(inbox.state).to_have_text("open")
    await push_numbers(world, inbox, 7, 9)
    await expect(inbox.messages).to_have_text(numbers(1, 9))


@pytest.mark.long
async def test_what_came_during_a_sleep_is_shown_once(
    site: Embedded, chromium: Browser, visit: Visit, enter: Enter
) -> None:
    world = await enter(site)
    inbox = await Inbox.enter(await visit(site), "gina")
    async with asleep(chromium):
        await push_numbers(world, inbox, 1, 3)
        await world.settle()
        assert await world.api.pending(inbox.key) == 3
    await expect(inbox.messages).to_have_text(numbers(1, 3))
    await world.wait_for_pending(inbox.key, 0)


@pytest.mark.long
async def test_a_page_whose_session_ended_in_its_sleep_comes_back(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    chromium: Browser,
    visit: Visit,
    enter: Enter,
) -> None:
    system = own_system(make_embedded(**SITE))
    world, visitor = await enter(system), await visit(system)
    visitor.expect_complaints(*SERVER_AWAY)
    inbox = await Inbox.enter(visitor, "ivy")
    async with asleep(chromium):
        await push_numbers(world, inbox, 1, 3)
        await world.settle()
        system.nodes[0].kill()
        await system.nodes[0].start_beside()
        await push_numbers(world, inbox, 4, 6)
    await expect(inbox.messages).to_have_text(numbers(1, 6))
    await world.wait_for_pending(inbox.key, 0)


@pytest.mark.long
async def test_two_tabs_show_each_message_once_and_one_goes_on_alone(
    site: Embedded, visit: Visit, enter: Enter
) -> None:
    world, visitor = await enter(site), await visit(site)
    one = await Inbox.enter(visitor, "hugo")
    other = await Inbox.enter(visitor, "hugo")
    await push_numbers(world, one, 1, 5)
    for tab in (one, other):
        await expect(tab.messages).to_have_text(numbers(1, 5))
    await world.wait_for_pending(one.key, 0)
    await other.page.reload()
    await expect(other.state).to_have_text("open")
    await one.page.close()
    await push_numbers(world, other, 6, 9)
    await expect(other.messages).to_have_text(numbers(1, 9))
    await world.wait_for_pending(other.key, 0)
    third = await Inbox.enter(visitor, "hugo")
    await push_numbers(world, other, 10, 10)
    await expect(other.messages).to_have_text(numbers(1, 10))
    await expect(third.messages).to_have_text(["10"])
