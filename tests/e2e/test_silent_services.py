"""A stop ends in time, whatever is silent at that moment: a node, the workers, the API.

The links to Postgres and Redis go through proxies, which keep silent as a dead network does.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests import eventually
from tests.silence import Proxy

from .clients import AUTH, pack
from .harness import Cluster, Process, System, Workers
from .world import World, new_key

DRAIN_SECONDS = 1.0
PROMISED = DRAIN_SECONDS + 10  # seconds from SIGTERM to the end
Enter = Callable[[System], Awaitable[World]]


class Site:
    """A node, the workers and an API process, and the proxies between them and the services."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.postgres = stack.enter_context(Proxy.to_url(cluster.environment["DATABASE_URL"]))
        self.redis = stack.enter_context(Proxy.to_url(cluster.environment["REDIS_URL"]))
        through = {"DATABASE_URL": self.postgres.url, "REDIS_URL": self.redis.url}
        cluster.environment |= through
        self.workers = Workers(cluster.home, "workers", cluster.environment)
        self.node, self.api = cluster.nodes[0], cluster.gunicorn
        cluster.processes = [self.node, self.workers, self.api]
        for process in cluster.processes:
            process.environment |= through

    def restore(self) -> None:
        self.postgres.restore()
        self.redis.restore()
        for process in self.cluster.processes:
            if not process.is_running:
                process.start()


@pytest.fixture(scope="module")
def shared_site(make_cluster: Callable[..., Cluster]) -> Iterator[Site]:
    with ExitStack() as stack:
        cluster = make_cluster(
            nodes=1, IMGO_DRAIN_SECONDS=str(DRAIN_SECONDS), IMGO_PARTITIONS="1", LOG_LEVEL="INFO"
        )
        site = Site(cluster, stack)
        stack.enter_context(cluster)
        yield site
        site.postgres.restore()
        site.redis.restore()
        for process in cluster.processes:
            process.kill()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    shared_site.restore()
    yield shared_site
    shared_site.postgres.restore()
    shared_site.redis.restore()


async def seconds_to_end(processes: list[Process]) -> dict[str, float]:
    """Tell them all to stop; how long each took."""
    began = time.monotonic()
    for process in processes:
        process.signal(signal.SIGTERM)
    took: dict[str, float] = {}

    def all_ended() -> bool:
        for process in processes:
            if process.name not in took and process.has_ended():
                took[process.name] = time.monotonic() - began
        return len(took) == len(processes)

    with contextlib.suppress(AssertionError):
        await eventually(all_ended, 2 * PROMISED)
    return {process.name: took.get(process.name, float("inf")) for process in processes}


@pytest.mark.parametrize("silent", ["postgres", "redis", "both"])
async def test_stop_with_silent_service_ends_in_time(site: Site, enter: Enter, silent: str) -> None:
    world = await enter(site.cluster)
    key = new_key()
    token = await world.token(key)
    client = await world.session(key)
    async with httpx.AsyncClient(base_url=site.api.url, trust_env=False) as api:
        headers = {"Authorization": f"Api-Key {site.cluster.api_key}"}
        push = {"to": {"key": key}, "body": 1}
        assert (await api.post("/api/v1/pushes", json=push, headers=headers)).status_code == 202
        await client.receive_bodies(1)
        for proxy in (site.postgres, site.redis):
            if silent in ("both", "postgres" if proxy is site.postgres else "redis"):
                proxy.silence()
        # One push, one login and one receipt that wait for it.
        waiting = asyncio.create_task(api.post("/api/v1/pushes", json=push, headers=headers))
        _, writer = await asyncio.open_connection("127.0.0.1", site.node.tcp_port)
        writer.write(pack(AUTH, 1, token.encode()))
        await asyncio.sleep(0.5)
        took = await seconds_to_end(list(site.cluster.processes))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        writer.transport.abort()
    assert {name: took[name] for name in took if took[name] > PROMISED} == {}, took
