"""What runs out: a node's file descriptors, its connections, its patience with who guesses."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import psycopg
import pytest

from tests import NO_TLS, eventually, wait_until

from .clients import TRANSPORTS, Closed, open_client
from .harness import Cluster, Embedded, System
from .world import World, new_key

FILES = 150
UNAUTHORIZED = 4401
RECOVERY = 5.0  # seconds
DAPHNE_KILLS = 10.0  # seconds after a client has gone, unless it is told not to

Start = Callable[[System], System]
Enter = Callable[[System], Awaitable[World]]


async def test_a_node_without_file_descriptors_recovers_when_it_has_some_again(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_embedded()))
    node = world.node()
    staying = await world.session(new_key(), "tcp")
    token = await world.token(new_key())
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (FILES, hard))

    async def gets_in(transport: str) -> bool:
        try:
            client = await open_client(node, transport)
        except (OSError, TimeoutError, Closed):
            return False
        try:
            await client.auth(token, 1)
        except (OSError, TimeoutError, Closed):
            return False
        finally:
            await client.close()
        return True

    took = []
    while not took or (min(took) >= RECOVERY and len(took) < 3):  # a machine may be busy
        reports = node.log.read_text().count("cannot be accepted")
        crowd = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", node.tcp_port) for _ in range(2 * FILES))
        )
        await eventually(
            lambda reports=reports: node.log.read_text().count("cannot be accepted") > reports
        )
        await staying.heartbeat()
        for _, writer in crowd:
            writer.close()
        freed = time.monotonic()
        for transport in TRANSPORTS:
            await eventually(partial(gets_in, transport))
        took.append(time.monotonic() - freed)
    assert min(took) < RECOVERY
    await staying.heartbeat()


@pytest.mark.long(but=["tcp"])
async def test_who_guesses_tokens_is_slowed_down_and_others_get_in(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter, transport: str
) -> None:
    world = await enter(own_system(make_embedded(IMGO_AUTH_FAILURES="5")))
    for _ in range(5):
        client = await world.connect(transport)
        assert (await client.refused("a wrong token")).code == UNAUTHORIZED
    began = time.monotonic()
    client = await world.connect(transport)
    assert (await client.refused("another wrong token")).code == UNAUTHORIZED
    assert time.monotonic() - began >= 0.9
    await world.session(new_key(), transport)


@pytest.mark.long
def test_requests_of_clients_that_have_gone_give_their_connections_back(
    make_cluster: Callable[..., Cluster], own_system: Start
) -> None:
    cluster = make_cluster(nodes=1)
    own_system(cluster)
    url = f"{cluster.nodes[0].url}/api/v1/keys/k"

    def status(timeout: float) -> int:
        headers = {"Authorization": f"Api-Key {cluster.api_key}"}
        return httpx.get(
            url, headers=headers, timeout=timeout, trust_env=False, verify=NO_TLS
        ).status_code

    assert status(10) == 200
    with psycopg.connect(cluster.database.url) as locking:
        locking.execute("LOCK TABLE offline_pending IN ACCESS EXCLUSIVE MODE")
        for _ in range(4):  # as many as the pool has
            with pytest.raises(httpx.ReadTimeout):
                status(0.5)

        def seconds() -> float:
            row = locking.execute("SELECT extract(epoch FROM clock_timestamp() - now())").fetchone()
            assert row is not None
            return float(row[0])

        wait_until(lambda: seconds() > DAPHNE_KILLS + 5, 30)
    wait_until(lambda: status(10) == 200, 2 * RECOVERY)
