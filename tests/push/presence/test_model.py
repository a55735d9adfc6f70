"""Random histories of several nodes: at rest everybody has the true picture."""

import asyncio
import random

import pytest

from tests import eventually
from tests.longer_proofs import examples
from tests.push.presence.nodes import ROOM, PresenceNode, Watcher, rounds

KEYS = "abcdefgh"
STEPS = 60


class History:
    """Random events on nodes, and what is true after them."""

    def __init__(self, make, seed: int, redis_client=None) -> None:
        self.draw = random.Random(seed)
        self._make = make
        self._redis = redis_client
        self._names = iter(range(1, 1_000))
        self.nodes: list[PresenceNode] = []
        self.sessions: list[tuple[PresenceNode, object, str]] = []
        self.watchers: list[Watcher] = []

    async def start_node(self) -> PresenceNode:
        node = self._make(f"n{next(self._names)}")
        await node.start()
        self.nodes.append(node)
        return node

    @property
    def present(self) -> set[str]:
        """The keys that have a session."""
        return {key for _, _, key in self.sessions} | {w.session.key for w in self.watchers}

    @property
    def infos(self) -> dict[str, object]:
        """What each key shows: the info of its newest session."""
        return {key: session.identity.info or {} for _, session, key in self.sessions}

    async def step(self) -> None:
        names = ("join", "join", "leave", "leave", "move", "round", "pause", "pause", "rare")
        await getattr(self, self.draw.choice(names))()

    async def join(self) -> None:
        node, key = self.draw.choice(self.nodes), self.draw.choice(KEYS)
        info = {"n": self.draw.randrange(3)}
        self.sessions.append((node, await node.join(key, info=info, watches=False), key))

    async def leave(self) -> None:
        if self.sessions:
            node, session, _ = self.sessions.pop(self.draw.randrange(len(self.sessions)))
            node.leave(session)

    async def move(self) -> None:
        """A client that loses its session and opens another, maybe elsewhere."""
        if self.sessions:
            node, session, key = self.sessions.pop(self.draw.randrange(len(self.sessions)))
            node.leave(session)
            other = self.draw.choice(self.nodes)
            self.sessions.append((other, await other.join(key, watches=False), key))

    async def round(self) -> None:
        await rounds(self.draw.choice(self.nodes))

    async def pause(self) -> None:
        await asyncio.sleep(self.draw.random() * 0.02)

    async def rare(self) -> None:
        if self.draw.random() < 0.6:
            return
        kinds = [self.kill, self.stop, self.fence]
        if self._redis is not None:
            kinds += [self.flush, self.break_connections]
        await self.draw.choice(kinds)()

    async def kill(self) -> None:
        if len(self.nodes) > 2:
            node = self.nodes.pop(self.draw.randrange(1, len(self.nodes)))
            self._forget(node)
            node.numbers.discard(node.number)
            node.kill()
            await self.start_node()

    async def stop(self) -> None:
        if len(self.nodes) > 2:
            node = self.nodes.pop(self.draw.randrange(1, len(self.nodes)))
            self._forget(node)
            node.numbers.discard(node.number)
            await node.presence.stop()
            await self.start_node()

    async def fence(self) -> None:
        """A reaper thinks that a live node is dead."""
        node = self.draw.choice(self.nodes)
        beats = (await node.presence.store.beats()).by_node
        if node.name in beats:
            await self.nodes[0].presence.store.condemn(node.name, beats[node.name])

    async def flush(self) -> None:
        self._redis.flushall()

    async def break_connections(self) -> None:
        self._redis.client_kill_filter(_type="pubsub")

    def _forget(self, node: PresenceNode) -> None:
        self.sessions = [one for one in self.sessions if one[0] is not node]
        self.watchers = [one for one in self.watchers if one.node is not node]

    async def until_true(self) -> None:
        """Wait until all nodes and all watchers have the true picture."""
        present = self.present

        async def is_so() -> bool:
            for node in self.nodes:
                node.presence._next_check = 0.0
            await rounds(*self.nodes)
            copies = [
                set(local.roster.members or ())
                for node in self.nodes
                if (local := node.presence.rooms.get(ROOM)) is not None
            ]
            if any(found != present for found in copies):
                return False
            for watcher in self.watchers:
                rows = (await watcher.node.picture())["members"]
                page = {row["key"]: row["info"] for row in rows}
                if page.keys() != present or watcher.catch_up().members != page:
                    return False
                if page | self.infos != page:
                    return False
            pages = [watcher.picture.members for watcher in self.watchers]
            return all(page == pages[0] for page in pages)

        await eventually(is_so)


async def run(history: History) -> None:
    for _ in range(3):
        await history.start_node()
    for node in history.nodes:
        history.watchers.append(await Watcher.join(node, f"watcher-{node.name}"))
    for _ in range(STEPS):
        await history.step()
    await history.until_true()
    assert history.watchers


@pytest.mark.parametrize("seed", range(examples(12)))
async def test_random_histories_end_in_the_true_picture(make, seed, request):
    in_redis = request.node.callspec.params["make"] == "redis"
    client = request.getfixturevalue("redis_client") if in_redis else None
    await run(History(make, seed, client))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1_000, 1_100))
async def test_many_random_histories_end_in_the_true_picture(make_redis, redis_client, seed):
    await run(History(make_redis, seed, redis_client))
