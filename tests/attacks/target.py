"""What is attacked, and what it looks like to others meanwhile."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import eventually
from tests.e2e.api_client import Publisher
from tests.e2e.harness import HOST, ROOT, Node, System
from tests.e2e.world import new_key

MEMORY_MAX = 24 * 2**20  # bytes that a node may have more afterwards: caches, and free lists
BEAT_MAX = 0.5  # seconds until another session's heartbeat is answered
OPENED_MIN = 0.99  # of the sessions that others open
TRIES = 3  # a machine may be busy with something else
WATCHER_TIMEOUT = 30.0  # seconds


@dataclass
class Seen:
    """What the watcher and the kernel say about one attack."""

    grown: int  # bytes
    beats: list[float] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def complaints(self) -> list[str]:
        """What did not hold."""
        found = []
        if self.grown > MEMORY_MAX:
            found.append(f"memory grew by {self.grown / 2**20:.0f} MiB")
        if max(self.beats) > BEAT_MAX:
            found.append(f"a heartbeat was answered after {max(self.beats):.2f} s")
        tries = len(self.opened) + self.failed
        if tries and len(self.opened) / tries < OPENED_MIN:
            found.append(f"{self.failed} of {tries} new sessions failed")
        return found

    def __str__(self) -> str:
        return (
            f"memory {self.grown / 2**20:+.1f} MiB, {len(self.beats)} heartbeats, worst "
            f"{max(self.beats) * 1000:.0f} ms, {len(self.opened)} sessions opened, "
            f"{self.failed} failed"
        )


class Target:
    """A node, with tokens of its own for an attacker and for others."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.node: Node = system.nodes[0]
        self.api = Publisher(system.api_url, system.api_key)

    async def __aenter__(self) -> "Target":
        await eventually(self._is_free)
        self.token = await self.api.make_token(new_key())
        self._others = [await self.api.make_token(new_key()) for _ in range(2)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.close()

    async def _is_free(self) -> bool:
        """Whether no requests of an attack before, from the same address, wait any more."""
        answer = await self.api.http.get("/api/v1/stats")
        return answer.status_code == 200

    @property
    def memory(self) -> int:
        """Bytes of memory that the node's process has in use, those swapped out too."""
        status = Path(f"/proc/{self.node.pid}/status").read_text()
        parts = re.findall(r"^(?:VmRSS|VmSwap):\s+(\d+) kB", status, re.MULTILINE)
        return sum(map(int, parts)) * 1024

    @property
    def deadlines(self) -> float:
        """Seconds that a client may take for headers and body."""
        return sum(self._deadlines)

    @property
    def patience(self) -> float:
        """Seconds that any client has: it is told that it is too slow after this, or later."""
        return min(self._deadlines)

    @property
    def _deadlines(self) -> list[float]:
        names = ("IMGO_HANDSHAKE_TIMEOUT", "IMGO_BODY_TIMEOUT")
        return [float(self.system.environment.get(name, "5")) for name in names]

    @property
    def sockets(self) -> int:
        """How many files the node's process has open."""
        return sum(1 for _ in Path(f"/proc/{self.node.pid}/fd").iterdir())

    async def connect(
        self, port: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the HTTP port, or another one."""
        return await asyncio.open_connection(HOST, port or self.node.http_port)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Seen]:
        """Measure, while the block attacks."""
        watcher = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(ROOT / "tests/attacks/watcher.py")),
            *(HOST, str(self.node.tcp_port), *self._others),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        try:
            assert await watcher.stdout.readline() == b"ready\n"
            seen = Seen(-self.memory)
            yield seen
            seen.grown += self.memory
            watcher.stdin.close()
            line = await asyncio.wait_for(watcher.stdout.readline(), WATCHER_TIMEOUT)
            vars(seen).update(json.loads(line))
        finally:
            if watcher.returncode is None:
                watcher.kill()
            await watcher.wait()


Attack = Callable[[Target, float], Awaitable[None]]


async def held_against(target: Target, attack: Attack, seconds: float) -> Seen:
    """Attack, and return what was seen of the try that went best."""
    for _ in range(TRIES):
        async with target.watched() as seen:
            await attack(target, seconds)
        if not seen.complaints:
            break
    return seen
