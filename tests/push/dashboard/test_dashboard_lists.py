"""The dashboard's long lists: their limits, more of them, and rooms by a part of the name."""

import asyncio
import html
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.utils import timezone

from imgo_site.direct_requests import has_websocket
from imgo_site.errors import Unavailable
from offline.models import Stream
from push.accept.accept import Push, accept_push
from push.registry.base import Entry, NodeEntry
from push.registry.memory_registry import MemoryRegistry
from push.registry.redis_registry import RedisRegistry

NODES = [NodeEntry(f"n{number}", f"node-{number}", number, 1_700_000_000.0) for number in (1, 2)]


@pytest.fixture
def browser(db) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def populate(settings, redis_client):
    """Writes sessions of two nodes into the registry: `populate([("u1", ["r1"])], node=2)`."""

    def write(sessions: list[tuple[str, list[str]]], node: int = 1) -> None:
        async def go() -> None:
            registry = RedisRegistry(settings.REDIS_URL)
            name = NODES[node - 1].id
            await registry.start(NODES[node - 1])
            for place, (key, rooms) in enumerate(sessions):
                entry = Entry(f"{name}-{place}", key, name, "tcp", "192.0.2.1", "", 1_700_000_000.0)
                await registry.add(entry, 0, evict=False)
                await registry.join(entry, rooms)
            await registry._client.aclose()

        asyncio.run(go())

    return write


def page_of(browser: Client, path: str, **query: str) -> str:
    answer = browser.get(f"/dashboard/{path}", query)
    assert answer.status_code == 200
    return answer.content.decode()


def names_in(page: str) -> list[str]:
    return re.findall(r"room\?name=([^\"]+)", page)


def test_rooms_filtered_by_part_show_those_of_all_nodes_once(browser, populate):
    populate([("u1", ["shop:1", "lobby", "a/b"]), ("u2", ["shop:2"])])
    populate([("u3", ["shop:2", "shop:3"])], node=2)
    page = page_of(browser, "rooms", part="shop:")
    assert names_in(page) == ["shop%3A2", "shop%3A1", "shop%3A3"]  # fullest first
    assert "Rooms (3) with" in page
    assert names_in(page_of(browser, "rooms", part="/")) == ["a%2Fb"]
    assert "None, of 6 room names compared." in page_of(browser, "rooms", part="zz")


def test_rooms_filtered_page_by_page_find_each_room_once(browser, populate, monkeypatch):
    monkeypatch.setattr("push.registry.redis_queries.SCAN", 10)
    monkeypatch.setattr("push.dashboard.views.ROOMS_SHOWN", 20)
    populate([("u1", [f"r{n}" for n in range(200)])])
    populate([("u2", [f"r{n}" for n in range(150, 300)])], node=2)
    found: list[str] = []
    page, pages = "/dashboard/rooms?part=r", 0
    while page:
        text = browser.get(page).content.decode()
        assert len(names_in(text)) < 100
        found += names_in(text)
        more = re.search(r'id="more-rooms" href="([^"]+)"', text)
        page, pages = more and f"/dashboard/rooms{html.unescape(more[1])}", pages + 1
    assert sorted(found) == sorted(f"r{n}" for n in range(300))
    assert pages > 5


def store_streams(*rooms: str) -> None:
    for number, room in enumerate(rooms, 1):
        Stream.objects.create(room=room, top=number, size=1_000 * number, used_at=timezone.now())


def test_rooms_with_history_are_listed_without_sessions_too(browser, populate, imgo):
    imgo(ROOMS={"chat-*": {"history": 10}})
    populate([("u1", ["chat-2"]), ("u2", ["chat-2"])])
    store_streams("chat-1", "chat-2", "a/b")
    assert "/dashboard/streams" in page_of(browser, "rooms")
    page = page_of(browser, "streams")
    assert names_in(page) == ["a%2Fb", "chat-1", "chat-2"]
    cells = re.findall(r'class="number" data-label="[\w ]+">([\d,]+)<', page)
    assert cells == ["0", "3", "3,000", "0", "1", "1,000", "2", "2", "2,000"]
    assert "Rooms (3)" in page
    imgo(ROOMS={})
    assert "/dashboard/streams" not in page_of(browser, "rooms")


@pytest.mark.parametrize("part", ["", "0", "zz"])
def test_rooms_with_history_page_by_page_come_each_once(browser, redis_client, monkeypatch, part):
    monkeypatch.setattr("push.dashboard.views.ROOMS_SHOWN", 4)
    monkeypatch.setattr("offline.stream_lists.EXAMINED_MAX", 6)
    rooms = [f"chat-{n:02}" for n in range(20)]
    store_streams(*rooms)
    found: list[str] = []
    page, pages = f"/dashboard/streams?part={part}", 0
    while page:
        text = browser.get(page).content.decode()
        found += names_in(text)
        more = re.search(r'id="more-streams" href="([^"]+)"', text)
        page, pages = more and f"/dashboard/streams{html.unescape(more[1])}", pages + 1
    assert found == [room for room in rooms if part in room]
    assert pages >= 4


def test_rooms_with_history_are_listed_while_the_registry_is_away(browser, monkeypatch):
    store_streams("chat-1")

    def fail(*_: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr("push.dashboard.views.get_registry", fail)
    assert ">unknown<" in page_of(browser, "streams")


@pytest.mark.parametrize("query", [{"part": "a\x01"}, {"after": "x" * 256}], ids=["part", "after"])
def test_rooms_with_history_by_bad_query_are_refused(browser, query):
    assert browser.get("/dashboard/streams", query).status_code == 400


@pytest.mark.parametrize(
    "query",
    [{"part": "a\x01"}, {"part": "r", "cursor": "x"}, {"part": "r", "cursor": "1--2"}],
    ids=["part", "text", "negative"],
)
def test_rooms_filtered_by_bad_query_is_refused(browser, redis_client, query):
    answer = browser.get("/dashboard/rooms", query)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.content.decode()


async def test_memory_registry_pages_rooms_by_part():
    registry = MemoryRegistry()
    entry = Entry("n1-1", "u1", "n1", "tcp", "192.0.2.1", "", 0.0)
    await registry.join(entry, ["shop:1", "shop:2", "shop:3", "lobby"])
    first = registry.find_rooms("shop", 2)
    rest = registry.find_rooms("shop", 2, first.cursor)
    assert first.rows + rest.rows == [("shop:1", 1), ("shop:2", 1), ("shop:3", 1)]
    assert (first.cursor, rest.cursor, first.examined) == ("2", "", 4)


def test_fullest_rooms_cut_offer_more(browser, populate, monkeypatch):
    monkeypatch.setattr("push.dashboard.views.ROOMS_SHOWN", 1)
    populate([("u1", ["r1", "r2", "r3"])])
    page = page_of(browser, "rooms")
    assert "The fullest 1 of 3." in page
    assert '<a href="?more=1">Show more</a>' in page
    assert page_of(browser, "rooms", more="1").count('scope="row"') == 3


def test_members_cut_offer_more(browser, populate, monkeypatch):
    monkeypatch.setattr("push.dashboard.views.MEMBERS_SHOWN", 5)
    populate([(f"u{n}", ["a&b"]) for n in range(20)])
    page = page_of(browser, "room", name="a&b")
    assert "5 of 20." in page
    assert '<a href="?name=a%26b&amp;more=1">Show more</a>' in page
    assert page_of(browser, "room", name="a&b", more="1").count('scope="row"') == 20


def test_key_lists_cut_say_how_many_and_offer_more(browser, populate, monkeypatch):
    for name in ("SESSIONS_SHOWN", "PENDING_SHOWN", "PUSHES_SHOWN"):
        monkeypatch.setattr(f"push.dashboard.views.{name}", 1)
    populate([("u1", [])] * 3)
    for _ in range(3):
        accept_push(Push(b"1", keys=("u1",)), "test")
    page = page_of(browser, "key", name="u1")
    assert page.count("The oldest 1 of 3.") == 2  # sessions and pending messages
    assert "The last 1; there are older ones." in page
    assert page.count(">Show more</a>") == 3
    longer = page_of(browser, "key", name="u1", more="1")
    assert longer.count('scope="row"') == 9
    assert "Show more" not in longer


def test_key_page_cells_carry_their_column(browser, populate):
    """A narrow window shows them in front of the cells: no column is out of sight there."""
    populate([("u1", [])])
    accept_push(Push(b"1", keys=("u1",)), "test")
    page = page_of(browser, "key", name="u1")
    for table in re.findall(r"<table class=\"stack\">.*?</table>", page, re.DOTALL):
        heads = re.findall(r'<th scope="col"(?: class="\w+")?>([^<]+)</th>', table)
        assert re.findall(r'data-label="([^"]+)"', table) == heads
    assert page.count('class="stack"') == 3


# Whether the WebSocket is tried


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"HTTP_X_FORWARDED_FOR": "192.0.2.1"}, True),
        ({"imgo.dropped": True}, True),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, True),
    ],
    ids=["direct", "forwarded", "dropped", "http10"],
)
def test_websocket_of_api_process_is_tried_behind_proxy_only(headers, expected):
    request = RequestFactory().get("/", **{"SERVER_PROTOCOL": "HTTP/1.1", **headers})
    assert has_websocket(request) is expected


def test_overview_of_api_process_names_no_websocket(browser, redis_client):
    page = page_of(browser, "")
    assert '"ws": null' in page
    answer = browser.get("/dashboard/", headers={"x-forwarded-for": "192.0.2.1"})
    assert '"ws": "/sub"' in answer.content.decode()
