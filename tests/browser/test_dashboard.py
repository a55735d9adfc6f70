"""The dashboard, as an operator sees it: live, without a WebSocket, on a phone, by keyboard."""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Locator, Page, WebSocketRoute, expect

from tests.e2e.frames import AUTH
from tests.e2e.harness import Embedded, System
from tests.e2e.world import World, new_key, new_room
from tests.push.hooks.fake_backend import backend, response

from .conftest import SITE
from .visitors import PHONE, SERVER_AWAY, Visitor, width

pytestmark = pytest.mark.asyncio(loop_scope="session")

Visit = Callable[..., Awaitable[Visitor]]
Enter = Callable[[System], Awaitable[World]]
SignIn = Callable[..., Awaitable[Visitor]]

KICKED, UNAVAILABLE = 4504, 4013
HOOK_SECRET = "whsec_" + base64.b64encode(b"of the tests, with enough bytes!").decode()
# Tables of which a part can only be seen by scrolling them sideways.
HIDDEN_TABLES = """
[...document.querySelectorAll(".scroll")]
  .filter((one) => one.scrollWidth > one.clientWidth)
  .map((one) => one.textContent)
"""
TABS = 60  # presses of the key until what it should reach is a failure


@pytest.fixture
def sign_in(visit: Visit) -> SignIn:
    """Has a visitor sign in as the administrator, through the form that he is sent to."""

    async def enter(system: Embedded, **options: object) -> Visitor:
        visitor = await visit(system, **options)
        page = await visitor.open("/dashboard/")
        await page.get_by_label("Username").fill("admin")
        await page.get_by_label("Password").fill(system.demo()["admin_password"])
        await page.get_by_role("button", name="Log in").click()
        await expect(page).to_have_title("Dashboard · imgo")
        await page.close()
        return visitor

    return enter


def state(page: Page) -> Locator:
    """What the page says about how old its figures are."""
    return page.locator("#state-text")


def tile(page: Page, name: str) -> Locator:
    """One of the large figures."""
    return page.locator(f"[data-tile={name}]")


def row_of(page: Page, message: int) -> Locator:
    """A message among the last ones."""
    return page.locator(f'#pushes [data-id="{message}"]')


async def open_live(visitor: Visitor) -> Page:
    """The overview, with pictures coming over the WebSocket."""
    page = await visitor.open("/dashboard/")
    await expect(state(page)).to_have_text("Live")
    return page


@pytest.mark.long
async def test_figures_change_without_a_reload(
    site: Embedded, sign_in: SignIn, enter: Enter
) -> None:
    # The operator's own zone is not the server's.
    visitor = await sign_in(site, timezone_id="Pacific/Kiritimati")
    world, page = await enter(site), await open_live(visitor)
    await page.evaluate("document.body.dataset.loaded = 'once'")
    await expect(tile(page, "sessions")).to_have_text("1")  # its own; those before have gone
    key, room = new_key(), new_room()
    client = await world.session(key, rooms=[room])
    message = await world.api.push({"key": key}, b"1")
    await client.receive_bodies(1)
    await expect(tile(page, "sessions")).to_have_text("2")
    await expect(page.locator("#rooms").get_by_role("row", name=room)).to_contain_text("1")
    await expect(row_of(page, message)).to_contain_text(f"key {key}")
    accepted = [f"{datetime.now(UTC) - timedelta(minutes=ago):%H:%M:}" for ago in (0, 1)]
    await expect(row_of(page, message)).to_contain_text(re.compile("|".join(accepted)))
    await client.close()
    await expect(tile(page, "sessions")).to_have_text("1")
    assert await page.evaluate("document.body.dataset.loaded") == "once"


@pytest.mark.long
async def test_hooks_have_a_table_with_their_failures_and_open_circuits(
    make_embedded: Callable[..., Embedded], sign_in: SignIn, enter: Enter
) -> None:
    async with backend(lambda _: response(500)) as found:
        system = make_embedded(
            **SITE, IMGO_AUTHENTICATE_URL=found.url, IMGO_HOOK_SECRETS=HOOK_SECRET
        )
        await asyncio.to_thread(system.start)
        try:
            visitor = await sign_in(system, viewport=PHONE)
            world, page = await enter(system), await open_live(visitor)
            row = page.locator('#hooks [data-id="authenticate"]')
            await expect(row).to_contain_text("ok")
            await expect(page.locator("#webhooks-card")).to_be_hidden()
            for _ in range(6):
                client = await world.connect("tcp")
                await client.send(AUTH, {"token": new_key(), "rooms": []})
                assert (await client.ended(20)).code == UNAVAILABLE
            await expect(row).to_contain_text("circuit open on")
            await expect(row).to_contain_text("unusable answer: 5, not called: 1")
            await expect(page.locator("#problems")).to_contain_text("manage.py hooks ping")
            assert await width(page) <= PHONE["width"]
            await page.close()  # before its server goes
        finally:
            await asyncio.to_thread(system.stop)


async def test_an_operator_finds_a_key_and_closes_its_sessions_after_a_question(
    site: Embedded, sign_in: SignIn, visit: Visit, enter: Enter
) -> None:
    visitor = await visit(site)
    demo = await visitor.open("/")
    alice = demo.get_by_role("region", name="alice", exact=True)
    await expect(alice.get_by_role("status")).to_have_text("open")
    await (await enter(site)).wait_for_sessions("alice", 1)  # those before have gone
    page = await open_live(await sign_in(site))
    await page.get_by_label("Key or room").fill("alice")
    await page.get_by_role("button", name="Find key").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Key alice")
    sessions = page.get_by_role("region", name="Sessions").get_by_role("rowgroup").last
    await expect(sessions.get_by_role("row")).to_have_count(1)
    await expect(sessions.get_by_role("row")).to_contain_text("127.0.0.1")
    await page.get_by_role("link", name="Close its sessions").click()
    await expect(page.get_by_role("main")).to_contain_text("Close 1 session of the key 'alice'?")
    await expect(alice.get_by_role("status")).to_have_text("open")  # nothing has been done yet
    await page.get_by_role("button", name="Close the sessions").click()
    await expect(page.get_by_role("status")).to_contain_text("being closed")
    await expect(alice.get_by_role("status")).to_have_text("closed")
    await expect(alice).to_contain_text(f"({KICKED})")
    bob = demo.get_by_role("region", name="bob", exact=True)
    await expect(bob.get_by_role("status")).to_have_text("open")
    await page.reload()
    await expect(page.get_by_role("main")).to_contain_text("Not connected.")


@pytest.mark.long
async def test_page_is_stale_while_the_server_is_away_and_live_afterwards(
    make_embedded: Callable[..., Embedded],
    own_system: Callable[[System], System],
    sign_in: SignIn,
) -> None:
    system = own_system(make_embedded())
    visitor = await sign_in(system)
    visitor.expect_complaints(*SERVER_AWAY)
    page = await open_live(visitor)
    await expect(tile(page, "nodes")).to_have_text("1")
    system.nodes[0].kill()
    await expect(state(page)).to_have_text("Stale: this is how it was")
    await expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    await expect(tile(page, "nodes")).to_have_text("1")  # how it was
    await system.nodes[0].start_beside()
    await expect(state(page)).to_have_text("Live")
    await expect(page.get_by_role("alert")).to_be_empty()


@pytest.mark.long
async def test_without_a_websocket_it_polls_until_there_is_one(
    site: Embedded, sign_in: SignIn, enter: Enter
) -> None:
    world, visitor = await enter(site), await sign_in(site)
    is_broken = True

    async def serve(socket: WebSocketRoute) -> None:
        if is_broken:
            await socket.close()
        else:
            socket.connect_to_server()

    await visitor.context.route_web_socket("**/sub", serve)
    page = await visitor.open("/dashboard/")
    message = await world.api.push({"key": new_key()}, b"1")
    await expect(state(page)).to_have_text("Polling: there is no WebSocket")
    await expect(row_of(page, message)).to_be_visible()
    is_broken = False
    await expect(state(page)).to_have_text("Live")


@pytest.mark.long
async def test_no_page_is_wider_than_a_phone(site: Embedded, sign_in: SignIn, enter: Enter) -> None:
    world, visitor = await enter(site), await sign_in(site, viewport=PHONE)
    name = "a_long_name_" * 16  # without a place to break it
    await world.session(name, rooms=[name])
    await world.api.push({"key": name}, b"1")
    page = await open_live(visitor)
    await expect(page.locator("#pushes")).to_contain_text(name)
    for path in (
        "",
        f"key?name={name}",
        f"room?name={name}",
        "rooms",
        f"keys?part={name}",
        "tail",
        f"act/kick-key?name={name}",
        "act/push",
    ):
        await page.goto(f"/dashboard/{path}")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert (path, await width(page)) == (path, PHONE["width"])
        assert (path, await page.evaluate(HIDDEN_TABLES)) == (path, [])


@pytest.mark.long
async def test_tail_shows_pushes_and_sessions_until_it_is_paused(
    site: Embedded, sign_in: SignIn, enter: Enter
) -> None:
    world, visitor = await enter(site), await sign_in(site)
    page = await visitor.open("/dashboard/tail")
    await expect(state(page)).to_have_text("Live")
    key = new_key()
    client = await world.session(key)
    message = await world.api.push({"key": key}, b"1")
    rows = page.locator("#rows").get_by_role("row").filter(has_text=key)
    await expect(rows.filter(has_text=f"push {message}")).to_have_count(1)
    await expect(rows.filter(has_text="session opened")).to_have_count(1)
    await client.close()
    await expect(rows.filter(has_text="session closed")).to_have_count(1)
    await page.get_by_role("checkbox", name="Sessions").uncheck()
    await expect(rows.filter(visible=True)).to_have_count(1)
    await page.get_by_role("button", name="Pause").click()
    await expect(state(page)).to_have_text("Paused")
    late = await world.api.push({"key": key}, b"2")
    await page.get_by_role("button", name="Go on").click()
    await expect(rows.filter(has_text=f"push {late}")).to_have_count(1)


@pytest.mark.long
async def test_the_keyboard_alone_finds_a_key_and_closes_its_sessions(
    site: Embedded, sign_in: SignIn, enter: Enter
) -> None:
    world, visitor = await enter(site), await sign_in(site)
    key = new_key()
    client = await world.session(key)
    page = await open_live(visitor)
    await press_tab_until(page, page.get_by_label("Key or room"))
    await page.keyboard.type(key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Key {key}")
    await press_tab_until(page, page.get_by_role("link", name="Close its sessions"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_contain_text("Close 1 session of")
    await press_tab_until(page, page.get_by_role("button", name="Close the sessions"))
    await page.keyboard.press("Enter")
    assert (await client.ended()).code == KICKED


async def press_tab_until(page: Page, wanted: Locator) -> None:
    """Go to an element with the Tab key, and see that one can tell where the focus is."""
    for _ in range(TABS):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("element => element === document.activeElement"):
            break
    await expect(wanted).to_be_focused()
    assert await wanted.evaluate("element => getComputedStyle(element).outlineStyle") != "none"


async def test_who_is_no_operator_is_sent_to_the_login(site: Embedded, visit: Visit) -> None:
    visitor = await visit(site)
    await visitor.open("/enter/customer")
    page = await visitor.open("/dashboard/")
    await expect(page).to_have_url(re.compile("/admin/login/"))
