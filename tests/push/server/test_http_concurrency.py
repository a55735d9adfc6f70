"""The places for HTTP requests of a node: how many work at a time, and whose turn it is."""

import asyncio
from typing import Any

import pytest

from push.server import http_concurrency
from push.server.http_concurrency import FairSemaphore, HttpConcurrency
from tests import eventually


class Site:
    """An application whose requests go on when they are told to."""

    def __init__(self) -> None:
        self.working: list[str] = []  # clients, in the order in which their requests began
        self.go_on = asyncio.Event()
        self.places = HttpConcurrency(self.serve)

    async def serve(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        self.working.append(scope["client"][0])
        if scope["path"] == "/read slowly":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.go_on.wait()

    def request(self, client: str, path: str = "/", sent: list[Any] | None = None) -> Any:
        async def receive() -> Any:
            if path == "/send slowly":
                await self.go_on.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if sent is not None:
                sent.append(message)

        scope = {"path": path, "client": [client, 1], "headers": []}
        return asyncio.create_task(self.places(scope, receive, send))


@pytest.fixture
async def site(monkeypatch):
    monkeypatch.setattr(http_concurrency, "WAITING_MAX", 3)
    site = Site()
    site.places._slots = FairSemaphore(2)
    return site


async def finish(site: Site, *requests: Any) -> None:
    site.go_on.set()
    await asyncio.gather(*requests)


async def test_no_more_requests_are_worked_on_than_there_are_places(site):
    requests = [site.request("a") for _ in range(5)]
    await eventually(lambda: site.working == ["a", "a"])
    await asyncio.sleep(0)
    assert site.working == ["a", "a"]
    await finish(site, *requests)
    assert site.working == ["a"] * 5
    assert site.places._slots.free == 2


async def test_clients_take_turns(site):
    requests = [site.request("a") for _ in range(5)]
    await eventually(lambda: len(site.working) == 2)
    requests += [site.request(client) for client in ("b", "c")]
    await asyncio.sleep(0)
    await finish(site, *requests)
    assert site.working == ["a", "a", "a", "b", "c", "a", "a"]


async def test_requests_of_a_client_that_has_too_many_waiting_are_refused(site):
    requests = [site.request("a") for _ in range(5)]
    await eventually(lambda: len(site.working) == 2)
    sent: list[Any] = []
    await site.request("a", "/api/v1/pushes", sent)
    assert [sent[0]["status"], dict(sent[0]["headers"])[b"content-type"]] == [
        503,
        b"application/problem+json",
    ]
    assert b"Nothing was accepted" in sent[1]["body"]
    other = site.request("b")
    await finish(site, *requests, other)
    assert site.working[-1] in "ab"
    assert site.working.count("b") == 1


async def test_client_that_reads_slowly_keeps_no_place(site):
    slow = [site.request("a", "/read slowly") for _ in range(4)]
    await eventually(lambda: len(site.working) == 4)
    await finish(site, *slow)
    assert site.places._slots.free == 2


async def test_client_that_sends_slowly_keeps_no_place(site):
    slow = [site.request("a", "/send slowly") for _ in range(4)]
    other = site.request("b")
    await eventually(lambda: site.working == ["b"])
    await finish(site, *slow, other)
    assert site.places._slots.free == 2


async def test_probes_need_no_place(site):
    requests = [site.request("a") for _ in range(4)]
    await eventually(lambda: len(site.working) == 2)
    requests.append(site.request("prober", "/healthz"))
    await eventually(lambda: site.working[-1] == "prober")
    await finish(site, *requests)


async def test_cancelled_request_leaves_its_turn_to_the_next(site):
    requests = [site.request("a") for _ in range(2)]
    await eventually(lambda: len(site.working) == 2)
    cancelled, last = site.request("b"), site.request("c")
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await finish(site, *requests, last)
    assert site.working == ["a", "a", "c"]
    assert site.places._slots.free == 2
