"""Redis with Sentinels: a dead master, an orderly fail-over, and a former master that answers.

Key pushes are stored before they are answered, so all of them arrive. A room's messages while no
master is there may be lost; what is pushed afterwards arrives.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import eventually
from tests.services import Redis, redis_programs, start_first

from .harness import Cluster, Database, System
from .world import World, new_key, new_room

SERVICE = "imgo"
Enter = Callable[[System], Awaitable[World]]


class Replica(Redis):
    """A replica of another Redis."""

    def __init__(self, master: Redis, base: Path, program: Path) -> None:
        self._master = master
        super().__init__(base, program)

    def _command(self) -> list[str | Path]:
        return [*super()._command(), "--replicaof", "127.0.0.1", str(self._master.port)]

    def is_in_step(self) -> bool:
        """Whether it has what the master has."""
        with redis.Redis.from_url(self.url) as client:
            return client.info("replication")["master_link_status"] == "up"


class Sentinel(Redis):
    """One Sentinel, which decides alone."""

    def __init__(self, master: Redis, base: Path, program: Path) -> None:
        self._master = master
        super().__init__(base, program)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _command(self) -> list[str | Path]:
        config = self.home / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.home}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        return [self._program, config, "--sentinel"]

    def ask(self, *command: Any) -> Any:
        """Its answer to a command."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return client.execute_command("SENTINEL", *command)

    def names(self, server: Redis) -> bool:
        """Whether it says that this server is the master."""
        return self.ask("GET-MASTER-ADDR-BY-NAME", SERVICE) == ["127.0.0.1", str(server.port)]


class Site:
    """Two nodes, a worker and an API process; a master, a replica and a Sentinel."""

    def __init__(self, home: Path, template: Database) -> None:
        programs = redis_programs()
        self.master = start_first(Redis, home, programs)
        self.replica = start_first(partial(Replica, self.master), home, programs)
        self.sentinel = start_first(partial(Sentinel, self.master), home, programs)
        url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}/0"
        self.cluster = Cluster(home, template, REDIS_URL=url, IMGO_AUDIT_INTERVAL="5")

    def clean_up(self) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.remove()


@pytest.fixture
def site(tmp_path: Path, postgres_template: Database) -> Iterator[Site]:
    site = Site(tmp_path, postgres_template)
    try:
        with site.cluster:
            yield site
    finally:
        site.clean_up()


async def master_dies(site: Site) -> None:
    site.master.kill()


async def operator_orders_a_failover(site: Site) -> None:
    assert site.sentinel.ask("FAILOVER", SERVICE) == "OK"


async def former_master_is_cut_off(site: Site) -> None:
    """It goes on answering its clients as a master, while the Sentinel names another one."""
    with redis.Redis.from_url(site.replica.url) as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    site.sentinel.ask("REMOVE", SERVICE)
    site.sentinel.ask("MONITOR", SERVICE, "127.0.0.1", site.replica.port, 1)


@pytest.mark.long
@pytest.mark.parametrize(
    "change", [master_dies, operator_orders_a_failover, former_master_is_cut_off]
)
async def test_after_a_failover_all_key_pushes_and_new_room_messages_arrive(
    site: Site, enter: Enter, change: Callable[[Site], Awaitable[None]]
) -> None:
    await eventually(site.replica.is_in_step)
    await eventually(lambda: bool(site.sentinel.ask("REPLICAS", SERVICE)))
    world = await enter(site.cluster)
    key, room = new_key(), new_room()
    sessions = [await world.session(key, "text", node, rooms=[room]) for node in (0, 1)]
    await change(site)
    await world.api.push({"keys": [key]}, b'"during"')
    await eventually(lambda: site.sentinel.names(site.replica))
    for session in sessions:
        assert await session.receive_bodies(1) == [b'"during"']
    await world.wait_for_sessions(key, 2)
    await world.api.push({"keys": [key]}, b'"after"')
    for session in sessions:
        assert await session.receive_bodies(1) == [b'"after"']

    async def hears_the_room(session: Any) -> bool:
        await world.api.push({"room": room}, b'"room"')
        with suppress(AssertionError):  # none within the second
            return bool(await session.receive_bodies(1, 1.0))
        return False

    for session in sessions:
        await eventually(partial(hears_the_room, session))
