"""What breaks: each fault is injected, shown to have taken effect, and ended, under a load."""

import asyncio
import os
import signal
from contextlib import suppress
from math import inf

import psycopg
import redis

from tests import eventually
from tests.e2e.harness import HttpProcess
from tests.services import Postgres

from .stage import SUPERVISED, Fault, NoEffect, Stage, children, refuses, require

CAUGHT_UP_MAX = 5.0  # seconds from the return of Redis until nothing waits any more
WAIT_MAX = 30.0  # seconds that the next fault waits for that
DEAF_MAX = 15.0  # seconds for a message while no worker takes tasks
SWEPT_MAX = 10.0  # seconds for nearly all: SWEEP_AFTER, half of it until the next round, a margin
DOWN_FOR = (0.5, 3.0)  # seconds that a server is away
AWAY_PUSHES = 10  # that must be accepted while Redis is away
CUT_PUSHES = 30  # that are accepted while the connections to Redis are cut
CUT_EVERY = 0.01  # seconds
GOING_AWAY = 4000
QUEUES = "imgo.push.*"  # the broker's lists


class KillNode(Fault):
    """A node dies with its sessions."""

    name = "kill -9 node"

    async def inject(self) -> None:
        load = self.stage.load
        node = max(load.cluster.nodes, key=lambda one: len(load.on(one)))
        there = load.on(node)
        require(there, f"{node.name} has no sessions")
        self.ended = self.began  # its sessions go elsewhere at once
        await self.kill_and_restart(node, node.http_port)
        gone = {gap.device for gap in self.gaps(self.began, inf)}
        require({device.name for device in there} <= gone, "its sessions live on")

    def missed(self) -> list[str]:
        return self.late_sessions()


class KillWorker(Fault):
    """The worker dies, with what it has in hand."""

    name = "kill -9 worker"

    async def inject(self) -> None:
        await self.kill_and_restart(self.stage.cluster.worker)


class KillApi(Fault):
    """The API process dies, its children too."""

    name = "kill -9 API"

    async def inject(self) -> None:
        gunicorn = self.stage.cluster.gunicorn
        require(children(gunicorn.pid), "gunicorn has no child")
        await self.kill_and_restart(gunicorn, gunicorn.http_port)
        statuses = {answer.status for answer in self.answers(self.began, inf)}
        require(statuses & {0, None}, "every call was answered")


class KillApiChild(Fault):
    """The API's worker process dies, and its master starts another."""

    name = "kill -9 API child"

    async def inject(self) -> None:
        gunicorn = self.stage.cluster.gunicorn
        before = children(gunicorn.pid)
        require(before, "gunicorn has no child")
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: set(children(gunicorn.pid)) - set(before), 15)
        require(not set(children(gunicorn.pid)) & set(before), "the child is still there")
        await eventually(lambda: asyncio.to_thread(gunicorn.is_ready), 30)


class RollingRestart(Fault):
    """Each node is told to end, and started again."""

    name = "SIGTERM nodes"

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.stops: list[tuple[HttpProcess, float, float]] = []

    async def inject(self) -> None:
        load = self.stage.load
        # The one with the most goes first: then the others have some too.
        nodes = sorted(load.cluster.nodes, key=lambda node: len(load.on(node)), reverse=True)
        for node in nodes:
            require(load.on(node), f"{node.name} has no sessions")
            start = self.stage.now()
            node.signal(signal.SIGTERM)
            await asyncio.to_thread(node.wait_until_ended)
            self.stops.append((node, start, self.stage.now()))
            require(refuses(node.http_port), f"{node.name} still listens")
            await node.start_beside()
            await load.all_there(30)

    def missed(self) -> list[str]:
        found = self.late_sessions()
        for node, start, end in self.stops:
            for gap in self.gaps(start, end):
                if gap.node is node and gap.code != GOING_AWAY:
                    found.append(f"{self.name}: {gap.device} was closed with {gap.code}")
        return found


class StopWorker(Fault):
    """The worker is told to end, and started again."""

    name = "SIGTERM worker"

    async def inject(self) -> None:
        worker = self.stage.cluster.worker
        worker.signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait_until_ended)
        await asyncio.sleep(SUPERVISED)
        await worker.start_beside()


class DeafWorker(Fault):
    """The worker hears nothing for a while; nodes sweep."""

    name = "worker paused"

    async def inject(self) -> None:
        worker = self.stage.cluster.worker
        with worker.paused():
            await eventually(lambda: worker.state == "T")
            await asyncio.sleep(self.stage.deaf)
            require(worker.state == "T", "the worker went on too early")

    def missed(self) -> list[str]:
        history = self.stage.load.history
        early = history.accepted_between(self.began, self.ended - SWEPT_MAX)
        if not early:
            return [f"{self.name}: nothing was pushed early enough to show a sweep"]
        late = [push for push in early if history.arrived(push) >= self.ended]
        return [f"{self.name}: {len(late)} messages waited for it"] if late else []


class RedisFault(Fault):
    """What all that happens to Redis must leave alone."""

    async def strike(self) -> None:
        """Strike, and wait for what was held up: the next fault would delay it further."""
        await super().strike()
        load, end = self.stage.load, self.stage.now() + WAIT_MAX
        # Polling, because an arrival sets no event.
        while load.caught_up(self.ended) == inf and self.stage.now() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.25)

    def missed(self) -> list[str]:
        found = self.bad_answers()
        caught_up = self.stage.load.caught_up(self.ended)
        if caught_up > CAUGHT_UP_MAX * self.stage.slack:
            found.append(f"{self.name}: caught up {caught_up:.1f} s after it was back")
        return found


class KillRedis(RedisFault):
    """Redis dies, and comes back with nothing in it."""

    name = "kill -9 Redis"

    async def inject(self) -> None:
        server = self.stage.cluster.redis
        before = server.pid
        server.kill()
        require(refuses(server.port), "Redis still listens")
        await self.stage.load.accepts(AWAY_PUSHES)
        await asyncio.sleep(self.stage.dice.uniform(*DOWN_FOR))
        await server.start_beside()
        with self.stage.redis() as client:
            require(client.info("server")["process_id"] != before, "Redis was not restarted")


class FlushRedis(RedisFault):
    """All that is in Redis is gone: tasks, registry, leases."""

    name = "FLUSHALL"

    async def inject(self) -> None:
        with self.stage.redis() as client:
            client.set("chaos", "here")
            require(client.dbsize() > 1, "nothing but our own key is in Redis")
            client.flushall()
            require(client.get("chaos") is None, "FLUSHALL removed nothing")


class PauseRedis(RedisFault):
    """Redis does not answer, and refuses nobody."""

    name = "Redis paused"

    async def inject(self) -> None:
        server = self.stage.cluster.redis
        with server.paused(), self.stage.redis(0.5) as client:
            with suppress(redis.TimeoutError):
                client.ping()
                raise NoEffect("Redis answers although it is stopped")
            await self.stage.load.accepts(AWAY_PUSHES)
            await asyncio.sleep(self.stage.pause)
            require(server.state == "T", f"Redis is in the state {server.state}")


class KillPubSub(RedisFault):
    """The connections that nodes hear through are cut, and cut again when they come back.

    Once is not enough: they are back in milliseconds, and little is published in between.
    """

    name = "CLIENT KILL pubsub"

    async def inject(self) -> None:
        history = self.stage.load.history
        wanted = history.accepted + CUT_PUSHES
        with self.stage.redis() as client:
            killed = client.client_kill_filter(_type="pubsub")
            require(killed >= len(self.stage.cluster.nodes), f"{killed} connections were cut")
            again = 0
            while history.accepted < wanted:
                for row in client.client_list(_type="pubsub"):
                    # Not Celery's, which has patterns: it would stop and wait after the fifth time.
                    if int(row["sub"]) and not int(row["psub"]):
                        again += client.client_kill_filter(_id=row["id"])
                await asyncio.sleep(CUT_EVERY)
        require(again, "no connection was cut twice")


class LoseTasks(Fault):
    """The broker loses the tasks that wait in it."""

    name = "tasks deleted"

    async def inject(self) -> None:
        worker = self.stage.cluster.worker
        with self.stage.redis() as client, worker.paused():
            await eventually(lambda: worker.state == "T")
            await eventually(lambda: list(client.scan_iter(QUEUES, _type="list")), 30)
            deleted = client.delete(*client.scan_iter(QUEUES, _type="list"))
            require(deleted, "no queue was deleted")


class PostgresFault(Fault):
    """What all that happens to Postgres must leave alone."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.down = self.up = inf

    async def inject(self) -> None:
        server = self.stage.postgres
        before = await asyncio.to_thread(_postmaster_start, server)
        await self.bring_down(server)
        require(refuses(server.port), "Postgres still listens")
        self.down = self.stage.now()
        await asyncio.sleep(self.stage.dice.uniform(*DOWN_FOR))
        # A push may wait for some seconds before it is refused.
        await eventually(lambda: self.answers(self.down, self.stage.now()), 15)
        self.up = self.stage.now()
        await server.start_beside()
        require(await asyncio.to_thread(_postmaster_start, server) > before, "not restarted")

    async def bring_down(self, server: Postgres) -> None:
        """End it, one way or the other."""
        raise NotImplementedError

    def missed(self) -> list[str]:
        while_down = self.answers(self.down, self.up)
        if not while_down:
            return [f"{self.name}: nothing was pushed while it was down"]
        found = [
            f"{self.name}: answered {a.status} while it was down"
            for a in while_down
            if a.is_accepted and a.answered < self.up
        ]
        found += [
            f"{self.name}: {gap.device} lost its session ({gap.code})"
            for gap in self.gaps(self.began, self.ended)
        ]
        return found


class KillPostgres(PostgresFault):
    """Postgres is killed, and started again later."""

    name = "kill -9 Postgres"

    async def bring_down(self, server: Postgres) -> None:
        server.kill()


class RestartPostgres(PostgresFault):
    """Postgres is restarted in order; it does not wait for clients."""

    name = "Postgres restart"

    async def bring_down(self, server: Postgres) -> None:
        await asyncio.to_thread(server.stop)


FAULTS: list[type[Fault]] = [
    *(KillNode, KillWorker, KillApi, KillApiChild, RollingRestart, StopWorker, DeafWorker),
    *(KillRedis, FlushRedis, PauseRedis, KillPubSub, LoseTasks, KillPostgres, RestartPostgres),
]


def _postmaster_start(server: Postgres) -> object:
    with psycopg.connect(server.url, connect_timeout=5) as connection:
        (start,) = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    return start
