"""Who gets no stream: an HTTP answer that says why, and whether to come back."""

import asyncio
import json

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from imgo_site.browser_requests import is_origin
from push.bus.layers import LAYER_ERRORS
from tests import in_thread
from tests.push.conftest import get_node

PAGE = "https://page.example"
HOST = {"host": "localhost"}


async def refused(client, query: str = "", **headers: str):
    one = client()
    status = await one.open(query, **headers)
    body = json.loads(await one.answer())
    assert one.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    return status, body["code"], one.headers


BEARER = {"authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("query", "headers", "outcome"),
    [
        ("", {}, (401, "not_authenticated")),
        ("token=wrong", {}, (401, "not_authenticated")),
        ("token=t", {"authorization": "Basic dTpw"}, (401, "not_authenticated")),
        ("room=a", BEARER, (400, "bad_request")),
        ("since=x", BEARER, (400, "bad_request")),
        ("rooms=imgo.dashboard", BEARER, (401, "not_authenticated")),
        ("rooms=lobby&token=t2", {}, (403, "room_forbidden")),
        ("", {**BEARER, "host": "elsewhere.example"}, (400, "bad_request")),
        ("", {**BEARER, "origin": PAGE, "sec-fetch-site": "cross-site"}, (403, "forbidden")),
    ],
)
async def test_a_request_is_refused_before_the_stream_begins(client, query, headers, outcome):
    status, code, found = await refused(client, query, **headers)
    assert (status, code) == outcome
    assert ("www-authenticate" in found) == (status == 401)
    assert "retry-after" not in found
    assert (await get_node()).hub.sessions == {}


async def test_a_key_with_too_many_sessions_comes_back_later(client, stream, imgo):
    imgo(MAX_SESSIONS_PER_KEY=1, PARTITIONS=1)
    await stream()
    status, code, found = await refused(client, **BEARER)
    assert (status, code, found["retry-after"]) == (429, "too_many_sessions", "30")


async def test_without_the_layer_nobody_gets_a_stream(client, monkeypatch):
    node = await get_node()

    async def fail(*_: object) -> None:
        raise LAYER_ERRORS[0]("away")

    monkeypatch.setattr("push.node.layer_groups.groups_add", fail)
    status, code, found = await refused(client, **BEARER)
    assert (status, code, found["retry-after"]) == (503, "unavailable", "5")
    assert node.hub.sessions == {}


async def test_a_handshake_that_takes_too_long_is_answered(client, imgo, monkeypatch):
    await get_node()
    imgo(HANDSHAKE_TIMEOUT=0.2, PARTITIONS=1)

    async def wait(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("push.node.layer_groups.groups_add", wait)
    status, code, _ = await refused(client, **BEARER)
    assert (status, code) == (503, "unavailable")


# Cookies


@pytest.fixture
async def cookie(transactional_db) -> str:
    def sign_in() -> str:
        user = get_user_model().objects.create_user("ann")
        browser = Client()
        browser.force_login(user)
        return f"sessionid={browser.cookies['sessionid'].value}"

    return await in_thread(sign_in)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "http://localhost", "sec-fetch-site": "same-origin"}, 200),
        ({}, 401),
        ({"sec-fetch-site": "none"}, 401),
        ({"sec-fetch-site": "same-site"}, 401),
        ({"sec-fetch-site": "cross-site"}, 401),
        ({"origin": PAGE}, 401),
        ({"origin": PAGE, "sec-fetch-site": "same-origin"}, 401),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 401),
    ],
)
async def test_a_cookie_counts_from_our_own_pages_only(client, cookie, headers, status):
    one = client()
    assert await one.open("", cookie=cookie, **headers) == status


# Pages of other origins


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [([], None), ([PAGE], PAGE), (["*"], PAGE), (["https://a.example"], None)],
)
async def test_a_page_may_read_by_cors_origins(client, imgo, origins, allowed):
    imgo(CORS_ORIGINS=origins, PARTITIONS=1)
    for token, status in (("t", 200), ("wrong", 401)):
        one = client()
        assert await one.open("", authorization=f"Bearer {token}", origin=PAGE) == status
        assert one.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-credentials" not in one.headers
        assert one.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", ["/sub/events", "/sub/events/ab-1"])
def test_a_preflight_is_answered_by_cors_origins(imgo, path):
    asked = {"HTTP_ORIGIN": PAGE, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    refusal = Client().options(path, **asked)
    assert refusal.status_code == 403
    assert "CORS_ORIGINS" in refusal.json()["detail"]
    imgo(CORS_ORIGINS=[PAGE])
    answer = Client().options(path, **asked)
    assert answer.status_code == 204
    assert answer["Access-Control-Allow-Origin"] == PAGE
    for name in ("Authorization", "Content-Type", "Last-Event-ID"):
        assert name in answer["Access-Control-Allow-Headers"]
    assert "POST" in answer["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://a.example", True),
        ("http://localhost:3000", True),
        ("capacitor://localhost", True),
        ("https://[::1]:8443", True),
        ("https://a.example/", False),
        ("https://a.example/path", False),
        ("https://a.example:443", False),
        ("http://a.example:80", False),
        ("https://A.example", False),
        ("a.example", False),
        ("https://", False),
        ("https://u@a.example", False),
        ("https://a.example:x", False),
        ("*.example", False),
    ],
)
def test_an_origin_is_what_browsers_send(text, good):
    assert is_origin(text) is good


# Where no stream is served


def test_a_process_without_sessions_says_where_streams_are():
    answer = Client().get("/sub/events?token=secret")
    assert (answer.status_code, answer["Content-Type"]) == (421, "application/problem+json")
    assert "node" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["head", "put", "delete", "patch", "trace", "post"])
def test_another_method_is_not_allowed(method):
    answer = getattr(Client(), method)("/sub/events")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, OPTIONS")
    assert Client().get("/sub/events/ab-1")["Allow"] == "POST, OPTIONS"
