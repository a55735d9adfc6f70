"""examples/device_feed: a device of 40 lines loses nothing when the server, or it, is away."""

import ast
import asyncio
import importlib.util
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from types import ModuleType

import pytest

from tests import eventually
from tests.e2e.harness import HOST, ROOT, Embedded, base_environment
from tests.e2e.world import World, new_key

EXAMPLE = "device_feed"
PROGRAM = ROOT / "examples" / "device_feed" / "device.py"
SEND, MESSAGE = 4, 5


def environment(system: Embedded, token: str) -> dict[str, str]:
    return {"SERVER": f"{HOST}:{system.nodes[0].tcp_port}", "TOKEN": token}


class Device:
    """The program, run beside the test so that its memory can be seen."""

    def __init__(self, program: ModuleType, running: "asyncio.Task[None]") -> None:
        self.program = program
        self._running = running

    @property
    def unconfirmed(self) -> set[int]:
        """When it measured what the server has not confirmed."""
        return {reading["at"] for reading in self.program.readings.values()}

    def has_more(self, count: int) -> Callable[[], bool]:
        """Whether as many readings have gathered."""
        return lambda: len(self.unconfirmed) >= count

    async def switch_off(self) -> None:
        """As its power supply does. Fails when it had ended before."""
        assert not self._running.done(), self._running
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running


@pytest.fixture
async def switch_on(
    example: Embedded, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[str], Device]]:
    """Starts a device with a token."""
    devices = []

    def start(token: str) -> Device:
        for name, value in environment(example, token).items():
            monkeypatch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("device", PROGRAM)
        assert spec is not None
        assert spec.loader is not None
        program = importlib.util.module_from_spec(spec)
        running = []
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "run", lambda it: running.append(asyncio.create_task(it)))
            spec.loader.exec_module(program)
        devices.append(Device(program, *running))
        return devices[-1]

    yield start
    for device in devices:
        with suppress(AssertionError):  # was switched off before
            await device.switch_off()


def stored(system: Embedded, key: str) -> list[int]:
    """When the device measured what the server has, Unix time in seconds."""
    path = system.home / "data" / "imgo.sqlite3"
    query = "SELECT unixepoch(at) FROM device_feed_reading WHERE device = ? ORDER BY at"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return [at for (at,) in database.execute(query, [key])]


def test_the_device_is_40_lines_of_the_standard_library() -> None:
    text = PROGRAM.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 40
    imported = {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= sys.stdlib_module_names


async def test_its_readings_are_stored_and_its_commands_arrive_once(
    example: Embedded,
    world: World,
    switch_on: Callable[[str], Device],
    capfd: pytest.CaptureFixture[str],
) -> None:
    key = new_key()
    await world.api.push({"key": key}, {"fan": "before it was there"})
    device = switch_on(await world.token(key))
    await world.wait_for_sessions(key, 1)
    await world.api.push({"key": key}, {"fan": "on"})
    await world.wait_for_pending(key, 0)
    assert capfd.readouterr().out.splitlines() == [
        'command {"fan": "before it was there"}',
        'command {"fan": "on"}',
    ]
    await eventually(lambda: len(stored(example, key)) >= 2)
    await eventually(lambda: not device.unconfirmed)


@pytest.mark.long
async def test_nothing_is_lost_while_the_server_is_away(
    example: Embedded,
    world: World,
    switch_on: Callable[[str], Device],
    capfd: pytest.CaptureFixture[str],
) -> None:
    key = new_key()
    device = switch_on(await world.token(key))
    await eventually(lambda: stored(example, key))
    node = example.nodes[0]
    node.stop()
    await eventually(device.has_more(2))
    measured = device.unconfirmed
    await node.start_beside()
    await world.api.push({"key": key}, {"fan": "off"})
    await eventually(lambda: measured <= set(stored(example, key)), 30)
    await eventually(lambda: not device.unconfirmed & measured)
    await world.wait_for_pending(key, 0)
    assert capfd.readouterr().out.splitlines() == ['command {"fan": "off"}']


async def test_what_it_was_told_while_it_was_off_waits(
    world: World, switch_on: Callable[[str], Device], capfd: pytest.CaptureFixture[str]
) -> None:
    key = new_key()
    device = switch_on(await world.token(key))
    await world.wait_for_sessions(key, 1)
    await device.switch_off()
    await world.wait_for_sessions(key, 0)
    for number in range(3):
        await world.api.push({"key": key}, {"step": number})
    switch_on(await world.token(key))
    await world.wait_for_pending(key, 0)
    lines = [f'command {{"step": {number}}}' for number in range(3)]
    assert capfd.readouterr().out.splitlines() == lines


async def test_a_device_that_is_told_to_stay_away_ends(example: Embedded, world: World) -> None:
    key = new_key()
    device = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        env={**base_environment(), **environment(example, await world.token(key))},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await world.wait_for_sessions(key, 1)
        answer = await world.api.http.delete(f"/api/v1/keys/{key}/sessions")
        assert answer.status_code < 300
        _, said = await asyncio.wait_for(device.communicate(), 30)
    finally:
        with suppress(ProcessLookupError):
            device.kill()
    assert json.loads(said)["reconnect"] is False
    assert device.returncode == 1


@pytest.mark.parametrize(
    "body", ['{"at": 1}', '{"at": -1, "celsius": 1}', '{"at": 1e300, "celsius": 1}', "x", "[]"]
)
async def test_a_reading_that_is_none_is_refused(world: World, body: str) -> None:
    session = await world.session(new_key())
    answer = await session.ask(SEND, body)
    assert (answer.op, answer.value["error"]["code"]) == (MESSAGE, "bad_request")


async def test_a_reading_that_comes_twice_is_stored_once(example: Embedded, world: World) -> None:
    key = new_key()
    session = await world.session(key)
    for celsius in (20.5, 21):
        answer = await session.ask(SEND, json.dumps({"at": 1_700_000_000, "celsius": celsius}))
        assert answer.value == {"stored": 1_700_000_000}
    assert stored(example, key) == [1_700_000_000]
