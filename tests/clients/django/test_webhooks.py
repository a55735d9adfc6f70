"""Webhooks of a running node at a running project: repeated, forged, in another order, and old."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import pytest

from tests import NO_TLS, eventually
from tests.e2e.harness import Embedded, System
from tests.e2e.world import World, new_key
from tests.push.hooks.fake_backend import Backend, Request, backend, response

from .shop import Shop, Site
from .test_delivery import WAIT

SECRET = "whsec_" + base64.b64encode(b"of the tests, with enough bytes!").decode()
OTHER = "whsec_" + base64.b64encode(b"of somebody else, also of enough").decode()
PATH = "/imgo/webhook/"
SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")

pytestmark = [
    pytest.mark.parametrize("vendor", ["sqlite", "postgres"], indirect=True),
    pytest.mark.long(but=["sqlite"]),
]


@dataclass
class Project:
    """The project, which runs, and what the node sends to it by way of a proxy."""

    shop: Shop
    site: Site
    held: list[Request] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=dict)  # statuses of those passed on, by id
    holds: bool = True  # requests are kept, and the node gets an error

    def pass_on(self, request: Request) -> bytes:
        """Hold a request of the node, or give it to the project; return the answer."""
        if self.holds:
            self.held.append(request)
            return response(503)
        status = self.send(request).status_code
        self.passed[request.headers["webhook-id"]] = status
        return response(status)

    def send(self, request: Request, url: str = "", **changes: str) -> httpx.Response:
        """Send a request of the node to the project; `changes`: of headers, by their last word."""
        headers = {name: request.headers[name] for name in SIGNED}
        headers |= {f"webhook-{name}": value for name, value in changes.items()}
        url = url or self.site.url
        with httpx.Client(trust_env=False, verify=NO_TLS) as http:
            return http.post(url + PATH, content=request.raw, headers=headers)

    def ids_by_key(self) -> dict[str, Request]:
        """The first request that the node has sent about each key."""
        found: dict[str, Request] = {}
        for request in self.held:
            for event in request.body["events"]:
                found.setdefault(event["data"]["key"], request)
        return found

    def orders(self) -> list[int]:
        """The ids of the messages whose acknowledgement the project was told, with repetitions."""
        out = self.shop.run(
            "from shop.models import Order\n"
            "print(list(Order.objects.order_by('pk').values_list('number', flat=True)))"
        )
        return list(json.loads(out))


@pytest.fixture
async def project(make_shop: Callable[..., Shop]) -> AsyncIterator[Project]:
    """The project, whose receiver of the signal writes a row for each event."""
    shop = make_shop(WEBHOOK_SECRETS=[OTHER, SECRET])
    shop.variables["SHOP_NOTES_EVENTS"] = "1"
    await asyncio.to_thread(shop.migrate)
    site = Site(shop, "site")
    await site.start_beside()
    yield Project(shop, site)
    site.kill()


@pytest.fixture
async def proxy(project: Project) -> AsyncIterator[Backend]:
    """What the node takes for the project."""
    async with backend(project.pass_on) as found:
        yield found


@pytest.fixture
async def system(make_embedded: Callable[..., Embedded], proxy: Backend) -> AsyncIterator[System]:
    """A node that sends events of acknowledgements."""
    endpoint = {"url": proxy.url + PATH, "secret": SECRET, "events": ["message.acknowledged"]}
    found = make_embedded(IMGO_WEBHOOKS=json.dumps([endpoint]))
    await asyncio.to_thread(found.start)
    yield found
    await asyncio.to_thread(found.stop)


async def acknowledge(world: World, key: str) -> int:
    """Push to a key whose client acknowledges it; return the message's id."""
    client = await world.session(key, ack=True)
    accepted = await world.api.push({"key": key}, b"1")
    await client.ack(await client.receive())
    return int(accepted)


async def test_webhooks_out_of_order_and_repeated_are_handled_once(
    project: Project, system: System, enter: Callable[[System], Awaitable[World]]
) -> None:
    world, keys = await enter(system), [new_key(), new_key()]
    ids = []
    for key in keys:
        ids.append(await acknowledge(world, key))
        await eventually(lambda key=key: key in project.ids_by_key(), WAIT)
    first, second = (project.ids_by_key()[key] for key in keys)
    assert first.headers["webhook-id"] != second.headers["webhook-id"]
    for request in (second, first, second, first):
        answer = await asyncio.to_thread(project.send, request)
        assert (answer.status_code, answer.content) == (204, b"")
    assert await asyncio.to_thread(project.orders) == ids[::-1]
    # Now the node's own repetitions: the same ids, with a new time and signature.
    project.holds = False
    repeated = {request.headers["webhook-id"] for request in (first, second)}
    await eventually(lambda: project.passed.keys() >= repeated, WAIT)
    assert set(project.passed.values()) == {204}
    assert await asyncio.to_thread(project.orders) == ids[::-1]


async def test_forged_and_old_webhooks_are_refused_with_the_reason(
    project: Project,
    system: System,
    enter: Callable[[System], Awaitable[World]],
) -> None:
    world, key = await enter(system), new_key()
    await acknowledge(world, key)
    await eventually(lambda: project.held, WAIT)
    real = project.held[0]
    other_body = Request(real.path, real.headers, real.raw.replace(b"acknowledged", b"delivered"))
    now = int(real.headers["webhook-timestamp"])
    unknown = "The header webhook-signature has no signature by a known secret."
    for request, changes, reason in (
        (other_body, {}, unknown),
        (real, {"id": "msg_another"}, unknown),
        (real, {"timestamp": str(now + 1)}, unknown),
        (real, {"signature": "v1,AAAA"}, unknown),
        (real, {"signature": real.headers["webhook-signature"].replace("v1,", "v2,")}, unknown),
        (real, {"timestamp": "soon"}, "The header webhook-timestamp is missing or malformed."),
        (real, {"id": ""}, "The header webhook-id is missing or malformed."),
    ):
        answer = await asyncio.to_thread(project.send, request, **changes)
        refused = {"code": "bad_signature", "error": reason}
        assert (answer.status_code, answer.json()) == (401, refused), changes
    assert await asyncio.to_thread(project.orders) == []
    # A process of the same project for which a webhook is old after a second.
    project.shop.imgo["WEBHOOK_AGE"] = 1
    strict = Site(project.shop, "strict")
    await strict.start_beside()
    await eventually(lambda: project.send(real, strict.url).status_code == 401, WAIT)
    answer = await asyncio.to_thread(project.send, real, strict.url)
    reason = "The header webhook-timestamp is too far from this server's time."
    assert answer.json() == {"code": "bad_signature", "error": reason}
    strict.kill()
