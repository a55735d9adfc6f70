"""While Postgres or Redis is silent: logins are refused in time, and a stop ends in time.

The links to both go through proxies, which keep silent as a dead network does.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import jwt
import psycopg
import pytest
import redis
from psycopg import sql

from tests import NO_TLS, eventually
from tests.services import free_port
from tests.silence import Proxy

from .frames import AUTH, pack
from .harness import Cluster, Process, System, Workers
from .world import World, new_key

DRAIN_SECONDS = 1.0
HANDSHAKE_TIMEOUT = 3.0
UNAVAILABLE = 4013
JWT_SECRET = "a secret for tests that has enough bytes"
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
            nodes=1,
            IMGO_DRAIN_SECONDS=str(DRAIN_SECONDS),
            IMGO_HANDSHAKE_TIMEOUT=str(HANDSHAKE_TIMEOUT),
            IMGO_PARTITIONS="1",
            IMGO_JWT_SECRET=JWT_SECRET,
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


@pytest.mark.parametrize("silent", ["postgres", "redis"])
@pytest.mark.long(but=["postgres"])
async def test_login_with_silent_service_is_closed_with_a_code(
    site: Site, enter: Enter, silent: str
) -> None:
    """Whoever is told that a session is open gets what is pushed; whoever is not may come back."""
    world = await enter(site.cluster)
    key = new_key()
    stored = await world.token(key)
    signed = jwt.encode({"sub": key, "exp": time.time() + 600}, JWT_SECRET)
    origin = {"Origin": site.node.url, "Cookie": "sessionid=abcdefghijklmnopqrstuvwxyz012345"}
    logins = [
        (await world.connect("tcp"), stored),
        (await world.connect("text"), {"token": stored, "ack": True}),
        (await world.connect("binary"), signed),
        (await world.connect("text", **origin), {"rooms": []}),
    ]
    proxy = {"postgres": site.postgres, "redis": site.redis}[silent]
    with proxy.silent():
        if silent == "redis":
            logins.pop()  # nobody has that login, and Redis is not needed to find that out
        began = time.monotonic()
        endings = await asyncio.gather(*(client.refused(body) for client, body in logins))
        took = time.monotonic() - began
    assert [ending and (ending.code, ending.frames) for ending in endings] == [
        (UNAVAILABLE, [])
    ] * len(logins)
    assert took < HANDSHAKE_TIMEOUT + 2

    async def works_again() -> bool:
        client = await world.connect()
        return await client.refused(stored) is None

    await eventually(works_again)


@contextmanager
def read_only_postgres(site: Site) -> Iterator[None]:
    """As after a failover to a standby; connections are made anew."""
    name = sql.Identifier(site.cluster.database.name)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        change = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        server.execute(change.format(name, sql.SQL("on")))
        server.execute(cut, [site.cluster.database.name])
        try:
            yield
        finally:
            server.execute(change.format(name, sql.SQL("off")))
            server.execute(cut, [site.cluster.database.name])


@contextmanager
def full_redis(site: Site) -> Iterator[None]:
    with redis.Redis.from_url(site.cluster.redis.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@contextmanager
def replica_redis(site: Site) -> Iterator[None]:
    with redis.Redis.from_url(site.cluster.redis.url) as client:
        client.replicaof("127.0.0.1", free_port())
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


FAULTS = {
    "read_only_postgres": (read_only_postgres, "database", "takes no writes: it is read-only"),
    "full_redis": (full_redis, "layer", "takes no writes: it is out of memory (maxmemory)"),
    "replica_redis": (replica_redis, "layer", "takes no writes: it is a read-only replica"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.long(but=["read_only_postgres", "replica_redis"])
async def test_service_that_takes_no_writes_makes_all_unready(
    site: Site, enter: Enter, fault: str
) -> None:
    """Readiness says so in our words, and so do refused sessions; workers live through it."""
    strike, part, text = FAULTS[fault]
    world = await enter(site.cluster)
    key = new_key()
    token = await world.token(key)
    pid = site.workers.pid
    async with httpx.AsyncClient(trust_env=False, timeout=10, verify=NO_TLS) as probe:

        async def is_told(url: str) -> bool:
            answer = await probe.get(f"{url}/readyz")
            return (answer.status_code, answer.json()["checks"][part]) == (503, text)

        with strike(site):
            for url in (site.node.url, site.api.url, site.workers.url):
                await eventually(lambda url=url: is_told(url))
                assert (await probe.get(f"{url}/healthz")).status_code == 200
            if part == "layer":
                client = await world.connect("text")
                ending = await client.refused(token)
                assert ending is not None
                assert (ending.code, ending.reason) == (UNAVAILABLE, f"Redis {text}.")
            await asyncio.sleep(2)  # the workers have met it

        async def is_ready(url: str) -> bool:
            return (await probe.get(f"{url}/readyz")).status_code == 200

        for url in (site.node.url, site.api.url, site.workers.url):
            await eventually(lambda url=url: is_ready(url))
    assert (site.workers.pid, site.workers.is_running) == (pid, True)

    async def opens() -> bool:
        return await (await world.connect()).refused(token) is None

    await eventually(opens)
    client = await world.session(key)
    await eventually(lambda: pushed(world, key))
    await client.receive_bodies(1)


async def pushed(world: World, key: str) -> bool:
    try:
        await world.api.push({"key": key}, b'"again"')
    except (AssertionError, httpx.HTTPError):
        return False
    return True


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
@pytest.mark.long
async def test_stop_with_silent_service_ends_in_time(site: Site, enter: Enter, silent: str) -> None:
    world = await enter(site.cluster)
    key = new_key()
    token = await world.token(key)
    client = await world.session(key)
    async with httpx.AsyncClient(base_url=site.api.url, trust_env=False, verify=NO_TLS) as api:
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
