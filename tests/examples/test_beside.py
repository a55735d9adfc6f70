"""examples/beside: a project of its own pushes to its customers through imgo's app only."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from imgo_client import Client, Refused
from tests import NO_TLS, PATIENCE, eventually
from tests.e2e.harness import HOST, ROOT

from .shops import Beside, Person, running


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    with running(tmp_path_factory.mktemp("beside")) as found:
        yield found


@pytest.fixture
def alice(shop: Beside) -> Iterator[Person]:
    with Person(shop, "alice") as person:
        yield person


@pytest.fixture
def bob(shop: Beside) -> Iterator[Person]:
    with Person(shop, "bob") as person:
        yield person


@asynccontextmanager
async def connected(person: Person, *rooms: str) -> AsyncIterator[Client]:
    """The session of a person's page, once it is open."""
    async with Client(person.attributes["socket"], person.token(), rooms=rooms) as client:
        await eventually(lambda: client.state == "open")
        yield client


async def told(client: Client, name: str, text: str) -> None:
    """Wait for a message; pushes of other tests may come before."""

    async def find() -> None:
        async for message in client:
            if text in str(message.body[name]):
                return

    await asyncio.wait_for(find(), PATIENCE)


@pytest.mark.long
async def test_status_change_is_pushed_to_customer_and_desk(alice: Person, bob: Person) -> None:
    async with connected(alice) as hers, connected(bob, "desk") as desk:
        order = (await asyncio.to_thread(alice.post, "/api/orders/", article="Teapot")).json()
        await told(hers, "text", f"Teapot, order {order['id']} is packed")  # by the task
        await told(desk, "id", str(order["id"]))
        path = f"/api/orders/{order['id']}/advance/"
        answer = await asyncio.to_thread(bob.post, path, status=2)
        assert answer.json()["label"] == "Shipped", answer.text
        await told(hers, "text", f"Teapot, order {order['id']} is shipped")
        await told(desk, "id", str(order["id"]))
    listed = await asyncio.to_thread(alice.listed, "/api/notifications/")
    assert [one["text"].split()[-1] for one in listed[:2]] == ["shipped", "packed"]


@pytest.mark.long
async def test_second_click_on_next_step_pushes_nothing(alice: Person, bob: Person) -> None:
    order = (await asyncio.to_thread(alice.post, "/api/orders/", article="Cup")).json()
    path = f"/api/orders/{order['id']}/advance/"
    for _ in range(2):
        answer = await asyncio.to_thread(bob.post, path, status=2)
        assert (answer.status_code, answer.json()["status"]) == (200, 3)
    texts = [one["text"] for one in await asyncio.to_thread(alice.listed, "/api/notifications/")]
    assert texts.count(f"Cup, order {order['id']} is shipped") == 1


@pytest.mark.long
async def test_notification_read_on_the_page_is_reported_by_webhook(alice: Person) -> None:
    await asyncio.to_thread(alice.post, "/api/orders/", article="Saucer")
    newest = (await asyncio.to_thread(alice.listed, "/api/notifications/"))[0]
    assert newest["is_read"] is False
    async with connected(alice) as hers:
        await hers.request({"read": newest["id"]})

    async def is_read() -> bool:
        found = await asyncio.to_thread(alice.listed, "/api/notifications/")
        return next(one["is_read"] for one in found if one["id"] == newest["id"])

    await eventually(is_read)


@pytest.mark.long
async def test_others_notification_cannot_be_marked_as_read(alice: Person, bob: Person) -> None:
    await asyncio.to_thread(alice.post, "/api/orders/", article="Spoon")
    await asyncio.to_thread(bob.post, "/api/orders/", article="Fork")
    hers = (await asyncio.to_thread(alice.listed, "/api/notifications/"))[0]
    his = (await asyncio.to_thread(bob.listed, "/api/notifications/"))[0]
    async with connected(bob) as client:
        await client.request({"read": hers["id"]})
        await client.request({"read": his["id"]})  # events of one key arrive in order

    async def his_is_read() -> bool:
        return (await asyncio.to_thread(bob.listed, "/api/notifications/"))[0]["is_read"]

    await eventually(his_is_read)
    newest = (await asyncio.to_thread(alice.listed, "/api/notifications/"))[0]
    assert (newest["id"], newest["is_read"]) == (hers["id"], False)


@pytest.mark.long
async def test_customer_may_not_join_the_room_of_the_desk(alice: Person) -> None:
    async with connected(alice) as client:
        with pytest.raises(Refused, match="desk"):
            await client.join("desk")
    answer = await asyncio.to_thread(alice.post, "/api/orders/1/advance/", status=2)
    assert answer.status_code == 403


def serves(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/", trust_env=False, verify=NO_TLS).status_code > 0
    except httpx.TransportError:
        return False


@pytest.mark.long
def test_interrupt_ends_both_and_next_start_has_the_same_users(tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all processes of the group."""
    first = Beside(tmp_path)
    first.start()
    try:
        assert serves(first.imgo_port)
        assert serves(first.port)
        os.killpg(first.pid, signal.SIGINT)
        first.wait_until_ended()
        assert not serves(first.imgo_port)
        assert not serves(first.port)
    finally:
        first.kill()
    with running(tmp_path) as second, Person(second, "alice") as alice:
        assert second.passwords() == first.passwords()
        assert "Notifications" in alice.page


# A shell without job control starts background jobs with SIGINT ignored.
AS_BACKGROUND_JOB = ("sh", "-c", 'trap "" INT; exec "$0" "$@"')


@pytest.mark.long
@pytest.mark.parametrize(
    ("taken", "starter"),
    [("IMGO_HTTP_PORT", ()), ("SHOP_PORT", ()), ("IMGO_HTTP_PORT", AS_BACKGROUND_JOB)],
    ids=["imgo", "shop", "imgo-in-background"],
)
def test_taken_port_ends_both_with_a_message(
    tmp_path: Path, taken: str, starter: tuple[str, ...]
) -> None:
    beside = Beside(tmp_path)
    ports = {"IMGO_HTTP_PORT": beside.imgo_port, "SHOP_PORT": beside.port}
    with socket.create_server((HOST, ports[taken])):
        done = subprocess.run(
            [*starter, sys.executable, *beside._command],
            cwd=ROOT,
            env=beside.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert [port for port in ports.values() if serves(port)] == []
