"""Nodes and sessions in the registry that the API reads."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from push.registry.base import Entry, NodeEntry
from push.registry.redis_registry import RedisRegistry


class Nodes:
    """Nodes as they are seen from an API process: what they write into Redis."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._url = url
        self._run = runner.run
        self._nodes: dict[str, RedisRegistry] = {}
        self._there: dict[str, list[tuple[Entry, set[str]]]] = {}

    def start(self, name: str, number: int, address: str = "") -> None:
        node = RedisRegistry(self._url)
        self._run(node.start(NodeEntry(name, f"{name}:8000", number, 100.0, address=address)))
        self._nodes[name] = node

    def open(self, session: str, key: str, *rooms: str, node: str = "n1") -> None:
        """A session on a node, which has been there for as long as its name says."""
        since = float(session.strip("s"))
        entry = Entry(session, key, node, "tcp", "192.0.2.1", "web", since)
        self._run(self._nodes[node].add(entry, 0, evict=False))
        self._run(self._nodes[node].join(entry, rooms))
        self._there.setdefault(node, []).append((entry, set(rooms)))

    def renew(self, node: str = "n1") -> None:
        """What a node does every few seconds."""
        there = self._there.get(node, [])
        self._run(self._nodes[node].renew(len(there), there))

    def drain(self, node: str) -> None:
        """What a node says that takes no more sessions."""
        self._run(self._nodes[node].report(0, {}, is_draining=True))

    def stop(self) -> None:
        for node in self._nodes.values():
            self._run(node.stop())


@pytest.fixture
def nodes(settings, redis_client) -> Iterator[Nodes]:
    """One node, n1, with the number 7 and nobody on it."""
    with asyncio.Runner() as runner:
        found = Nodes(settings.REDIS_URL, runner)
        found.start("n1", 7)
        yield found
        found.stop()


@pytest.fixture
def registry_down(monkeypatch, closed_port) -> None:
    """Redis cannot be reached."""
    registry = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    for module in ("v1", "rooms", "legacy", "goim"):
        monkeypatch.setattr(f"push.api.{module}.get_registry", lambda: registry)


@pytest.fixture
def committed(django_capture_on_commit_callbacks) -> Callable:
    """`with committed():` as if the test's transaction were committed at its end."""
    return lambda: django_capture_on_commit_callbacks(execute=True)
