"""Each fault under a small load: nothing lost, nothing foreign, in order, and back in time.

The short form of `make chaos`. The installation is shared, with a Postgres server of its own:
each fault leaves it healthy for the next.
"""

import asyncio
import itertools
import os
import random
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import psycopg
import pytest
import redis

from tests import CHAOS_SEED, eventually
from tests.chaos import faults
from tests.chaos.load import Load, Plan
from tests.chaos.stage import ANSWER_MAX, Fault, Stage, refuses
from tests.services import Postgres, postgres_programs, start_first

from .clients import Closed
from .harness import Cluster, Database, System, manage
from .world import World, new_key

PUSHES = 200  # accepted, for one fault
BEFORE = 60  # of them before it
DEVICE_PUSHES = 4  # to two devices, one after the other
DRAIN_SECONDS = 5.0  # the default of the setting
RERUN_MAX = 30.0  # seconds until the task that a killed worker had in hand runs again
LOCK_CLASS = 0x696D676F  # of the advisory locks that a drain holds
PARTITIONS = 4
CONNECTION_LOST = "Connection to broker lost"  # in the log of a Celery worker
GIVE_UP_MAX = 30.0  # seconds; redis-py tries an acknowledgement four times, with pauses

Enter = Callable[[System], Awaitable[World]]
Start = Callable[[Cluster], Cluster]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that may be killed."""
    server = start_first(Postgres, tmp_path_factory.mktemp("postgres"), postgres_programs())
    yield server
    server.remove()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Cluster]:
    """Two nodes, a worker and an API process; in the end all that they accepted is there."""
    template = Database(postgres.url)
    template.migrate()
    with Cluster(tmp_path_factory.mktemp("faults"), template) as cluster:
        yield cluster
        assert all(process.is_running for process in cluster.processes)
        assert "Everything is accounted for" in manage(cluster.environment, "conserve")


@pytest.mark.parametrize("kind", faults.FAULTS, ids=lambda kind: kind.__name__)
@pytest.mark.long
async def test_a_load_survives(site: Cluster, postgres: Postgres, kind: type[Fault]) -> None:
    seed = random.Random(f"{os.environ[CHAOS_SEED]} {kind.__name__}").getrandbits(32)
    async with Load(site, Plan(seed=seed)) as load:
        stage = Stage(load, postgres, load.random, pause=5, deaf=13, slack=2)
        fault = kind(stage)
        load.push()
        await load.accepts(BEFORE)
        await fault.strike()
        await load.accepts(max(20, PUSHES - load.history.accepted))
        await load.drain()
        result = load.history.check()
    assert result.violations == {}, f"{result}\nfault: {vars(fault)}\nseed: {seed}"
    assert load.room_violations() == {}, load.rooms.check()
    assert load.kept_violations() == [], f"{load.kept.check()}\nseed: {seed}"
    assert load.kept.accepted
    assert fault.missed() == []
    assert stage.remarks == []
    assert load.history.accepted >= PUSHES
    assert result.delivered == result.accepted
    if kind is faults.RollingRestart:
        assert_spread_out(fault)


def assert_spread_out(fault: faults.RollingRestart) -> None:
    """The sessions of a node that ends are closed one after the other."""
    assert len(fault.stops) == 2
    for node, start, end in fault.stops:
        closed = sorted(gap.closed for gap in fault.gaps(start, end) if gap.node is node)
        assert len(closed) > 1
        steps = [later - earlier for earlier, later in itertools.pairwise(closed)]
        # Most of them: two that end while nobody looks are seen at once.
        assert statistics.median(steps) > 0.1
        assert closed[-1] - start < DRAIN_SECONDS + 5


@pytest.fixture(autouse=True)
def healthy(site: Cluster, postgres: Postgres) -> Iterator[None]:
    """A fault that failed halfway must not fail those after it."""
    yield
    postgres.start()
    site.redis.start()
    for process in site.processes:
        if not process.is_running:
            process.start()


@pytest.fixture
def unswept(make_cluster: Callable[..., Cluster], own_system: Start) -> Callable[..., Cluster]:
    """Starts a cluster where no sweep makes good for its worker, which may have other settings."""

    def start(**for_worker: str) -> Cluster:
        cluster = make_cluster(IMGO_SWEEP_AFTER="3600")
        cluster.worker.environment = {**cluster.worker.environment, **for_worker}
        return own_system(cluster)

    return start


@pytest.mark.long
async def test_a_task_that_a_killed_worker_had_in_hand_runs_again(
    unswept: Callable[..., Cluster], enter: Enter
) -> None:
    """A message to a room is pending nowhere."""
    cluster = unswept()
    world = await enter(cluster)
    client = await world.session(new_key(), rooms=["r"])
    with task_in_hand(cluster) as broker:
        await world.api.push({"room": "r"}, b'"in hand"')
        await eventually(lambda: in_hand(broker) and not queued(broker))
        cluster.worker.kill()
        killed = time.monotonic()
        assert cluster.worker.status == -signal.SIGKILL
        assert in_hand(broker)
    await cluster.worker.start_beside()
    assert await client.receive_bodies(1, RERUN_MAX) == [b'"in hand"']
    assert time.monotonic() - killed < RERUN_MAX
    with redis.Redis.from_url(cluster.redis.url, protocol=2) as broker:
        await eventually(lambda: not in_hand(broker))


@pytest.mark.long
async def test_a_worker_that_could_not_acknowledge_takes_tasks_again(
    unswept: Callable[..., Cluster], enter: Enter
) -> None:
    """What it could not send comes once, with what is pushed next."""
    cluster = unswept(DJANGO_SETTINGS_MODULE="tests.e2e.impatient_settings")
    world = await enter(cluster)
    client = await world.session(new_key(), rooms=["r"])
    with ExitStack() as pause, ExitStack() as partitions:
        broker = partitions.enter_context(task_in_hand(cluster))
        await world.api.push({"room": "r"}, b'"in hand"')
        await eventually(lambda: in_hand(broker) and not queued(broker))
        pause.enter_context(cluster.redis.paused())
        await eventually(lambda: cluster.redis.state == "T")
        partitions.close()
        await eventually(lambda: CONNECTION_LOST in cluster.worker.log.read_text(), GIVE_UP_MAX)
        # What a room is sent while its node is away from Redis is for nobody.
        partitions.enter_context(partitions_taken(cluster))
        pause.close()
        await hears_again(world)
    await world.api.push({"room": "r"}, b'"the next"')
    assert await client.receive_bodies(2, RERUN_MAX) == [b'"in hand"', b'"the next"']
    await world.api.push({"room": "r"}, b'"the last"')
    assert await client.receive_bodies(1) == [b'"the last"']


async def hears_again(world: World) -> None:
    """Wait until the first node has its subscriptions: it confirms none of a session's before."""

    async def opens() -> bool:
        with suppress(Closed, TimeoutError, httpx.HTTPError):
            await (await world.session(new_key())).close()
            return True
        return False

    await eventually(opens, faults.DEAF_MAX)


@contextmanager
def task_in_hand(cluster: Cluster) -> Iterator[redis.Redis]:
    """Whoever takes a task does not get done with it; what the broker holds can be read."""
    with (
        redis.Redis.from_url(cluster.redis.url, protocol=2) as broker,
        partitions_taken(cluster),
    ):
        yield broker


@contextmanager
def partitions_taken(cluster: Cluster) -> Iterator[None]:
    """Nobody else can send from any partition."""
    with psycopg.connect(cluster.database.url) as other:
        take_partitions(other)
        yield


def in_hand(broker: redis.Redis) -> list[bytes]:
    """The tasks that workers have taken and not acknowledged, without canaries."""
    return [text for text in broker.hvals("imgo.unacked") if b"push.fan_out" in text]


def queued(broker: redis.Redis) -> list[bytes]:
    """The queues with something in them."""
    return list(broker.scan_iter(faults.QUEUES, _type="list"))


@pytest.mark.long
async def test_what_the_broker_has_lost_is_swept(site: Cluster, enter: Enter) -> None:
    world = await enter(site)
    key = new_key()
    client = await world.session(key, "binary", rooms=["swept"])
    with redis.Redis.from_url(site.redis.url, protocol=2) as broker, site.worker.paused():
        await world.api.push({"key": key}, b'"to the key"')
        await world.api.push({"room": "swept"}, b'"to the room"')
        await eventually(lambda: queued(broker))
        assert broker.delete(*queued(broker))
        bodies = await client.receive_bodies(2, faults.DEAF_MAX)
    assert sorted(bodies) == [b'"to the key"', b'"to the room"']
    await world.wait_for_pending(key, 0)


@pytest.mark.long
async def test_a_worker_that_hangs_in_a_drain_stops_nobody_for_long(
    site: Cluster, enter: Enter
) -> None:
    """It is stopped while it waits for the partitions, and so has them without using them."""
    world = await enter(site)
    client = await world.session(new_key(), rooms=["hanging"])
    await world.settle()
    with psycopg.connect(site.database.url) as other:
        take_partitions(other)
        await world.api.push({"room": "hanging"}, b'"swept"')
        await eventually(lambda: drains(other, granted=False))
        with site.worker.paused():
            await eventually(lambda: site.worker.state == "T")
            other.rollback()
            assert drains(other, granted=True)
            assert await client.receive_bodies(1, faults.DEAF_MAX) == [b'"swept"']


@pytest.mark.long
async def test_devices_on_two_nodes_stay_in_order_while_no_worker_takes_tasks(
    site: Cluster, enter: Enter
) -> None:
    """Whoever looks for what is pending must not overtake what is still to be sent to others."""
    world = await enter(site)
    key = new_key()
    devices = [await world.session(key, "text", node) for node in (0, 1)]
    received: list[list[int]] = [[], []]

    async def read(number: int) -> None:
        while len(received[number]) < DEVICE_PUSHES:
            received[number].append((await devices[number].receive(faults.DEAF_MAX)).value)

    readers = [asyncio.create_task(read(number)) for number in (0, 1)]
    with site.worker.paused():
        await eventually(lambda: site.worker.state == "T")
        for n in range(DEVICE_PUSHES):
            await world.api.push({"key": key}, n)
            await eventually(lambda n=n: any(n in numbers for numbers in received), faults.DEAF_MAX)
    await asyncio.gather(*readers)
    assert received == [list(range(DEVICE_PUSHES))] * 2


def take_partitions(connection: psycopg.Connection) -> None:
    """Have all partitions to oneself, as a drain has one, until the transaction ends."""
    for partition in range(PARTITIONS):
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, partition])


def drains(connection: psycopg.Connection, *, granted: bool) -> list[Any]:
    """The partitions that others have, or wait for."""
    query = (
        "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = %s"
        " AND granted = %s AND pid <> pg_backend_pid()"
    )
    return connection.execute(query, [LOCK_CLASS, granted]).fetchall()


@pytest.mark.long
async def test_what_was_written_and_not_acknowledged_comes_again_with_its_id(
    site: Cluster, enter: Enter
) -> None:
    world = await enter(site)
    key = new_key()
    dying = site.nodes[0]
    client = await world.session(key, "binary", node=0, ack=True)
    ids = [await world.api.push({"key": key}, n) for n in range(5)]
    received = [await client.receive() for _ in ids]
    assert [frame.id for frame in received] == ids
    dying.kill()
    assert dying.status == -signal.SIGKILL
    with pytest.raises(Closed):
        await client.receive()
    for transport in ("text", "tcp"):
        back = await world.session(key, transport, node=1, ack=True)
        again = [await back.receive() for _ in ids]
        assert [(frame.id, frame.body) for frame in again] == [(f.id, f.body) for f in received]
    await back.ack(*again)
    await world.wait_for_pending(key, 0)
    await dying.start_beside()


@pytest.mark.long
async def test_the_api_answers_while_redis_is_stopped(site: Cluster, enter: Enter) -> None:
    """Accepted although nobody can be woken; and it arrives as soon as Redis goes on."""
    world = await enter(site)
    key = new_key()
    client = await world.session(key, "text")
    await world.settle()
    with site.redis.paused():
        await eventually(lambda: site.redis.state == "T")
        bodies: list[bytes] = []
        took: list[float] = []
        while not took or (min(took) >= ANSWER_MAX and len(took) < 3):  # a machine may be busy
            later = [b'"stopped %d"' % n for n in range(len(bodies), len(bodies) + 10)]
            start = time.monotonic()
            for body in later:
                await world.api.push({"key": key}, body)
            took.append(time.monotonic() - start)
            bodies += later
        assert min(took) < ANSWER_MAX
    assert await client.receive_bodies(len(bodies), 2 * faults.CAUGHT_UP_MAX) == bodies


@pytest.mark.long
async def test_nothing_is_accepted_while_postgres_is_down_and_sessions_stay(
    site: Cluster, postgres: Postgres, enter: Enter
) -> None:
    world = await enter(site)
    key = new_key()
    client = await world.session(key, "text")
    await world.settle()
    postgres.kill()
    assert refuses(postgres.port)
    try:
        answers = await asyncio.gather(*(try_to_push(world, key) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [503] * 5
        assert all(answer.json()["retry"] is True for answer in answers)
        await client.heartbeat()
    finally:
        await postgres.start_beside()

    async def is_accepted() -> bool:
        return (await try_to_push(world, key, body="back")).status_code == 202

    await eventually(is_accepted)
    assert await client.receive_bodies(1) == [b'"back"']


async def try_to_push(world: World, key: str, body: Any = "refused") -> httpx.Response:
    """The answer, whatever it is."""
    push = {"to": {"key": key}, "body": body}
    return await world.api.http.post("/api/v1/pushes", json=push)
