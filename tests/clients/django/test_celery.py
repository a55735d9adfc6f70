"""A project that relays by a Celery task: a real worker, and a broker that comes and goes."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Embedded, logs
from tests.e2e.world import new_key
from tests.services import Redis, redis_programs, start_first

from .shop import Shop
from .test_delivery import QUICK, Enter, count_waiting, push_numbers, received, until_empty

COUNT = 100  # pushes to each key
BLOCKED = 3.0  # seconds; a client of Redis tries for twice as long to connect, for each task

pytestmark = [
    pytest.mark.parametrize("vendor", ["sqlite", "postgres"], indirect=True),
    pytest.mark.long(but=["sqlite"]),
]


@pytest.fixture(scope="module")
def system(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """One node, which nobody stops."""
    with make_embedded() as found:
        yield found
    assert logs.complaints() == []


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Redis]:
    """The project's own Redis."""
    found: Redis = start_first(Redis, tmp_path, redis_programs())
    yield found
    found.remove()


@pytest.fixture
def shop(make_shop: Callable[..., Shop], system: Embedded, broker: Redis) -> Iterator[Shop]:
    """The project, with a worker that runs."""
    options = {"URL": system.api_url, "API_KEY": system.api_key, "RELAY": "celery", **QUICK}
    made = make_shop(**options)
    made.variables["SHOP_BROKER"] = broker.url
    made.migrate()
    worker = made.worker()
    worker.start()
    yield made
    worker.stop()


async def test_commits_request_the_task_and_everything_arrives_once(
    system: Embedded, enter: Enter, shop: Shop
) -> None:
    world, keys = await enter(system), [new_key() for _ in range(4)]
    await asyncio.to_thread(push_numbers, shop, keys, COUNT)
    await until_empty(shop)
    for key in keys:
        assert await received(world, key, COUNT) == list(range(COUNT))


async def test_commit_without_a_broker_succeeds_and_beat_delivers_it_later(
    system: Embedded, enter: Enter, shop: Shop, broker: Redis
) -> None:
    world, key = await enter(system), new_key()
    broker.kill()
    # The process prints how long its commits took, and then waits a moment for the broker.
    out = await asyncio.to_thread(
        shop.run,
        f"""
import time
began = time.monotonic()
for number in range(10):
    push_to_key({key!r}, number)
print(time.monotonic() - began)
""",
    )
    assert float(out) < BLOCKED
    assert count_waiting(shop) == 10
    await broker.start_beside()
    # What a schedule of Celery beat does.
    words = ("-m", "celery", "-A", "shop", "call", "imgo_client.relay")
    called = await asyncio.to_thread(shop.python, *words)
    assert called.returncode == 0, called.stderr
    await until_empty(shop)
    assert await received(world, key, 10) == list(range(10))
    assert "Connection to broker lost" in (shop.home / "worker.log").read_text()
    # Celery adds a traceback, or not: that depends on where the worker was at that moment.
    assert all("Connection to broker lost" in complaint for complaint in logs.complaints())
