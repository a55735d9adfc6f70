"""Rooms with history while Postgres fails over, to a standby with and without the latest messages.

Without them, and by default, the epoch changes and all are told. With the setting that says that
standbys are synchronous it stays.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import eventually

from .clients import Client
from .frames import MESSAGE, STREAM_GAP
from .harness import Cluster, Database, System
from .rooms import SETTINGS, new_kept_room, push_to
from .standbys import Primary, Standby
from .world import World, new_key

Enter = Callable[[System], Awaitable[World]]


@pytest.fixture(params=["0", "1"], ids=["wary", "trusting"])
def trust(request: pytest.FixtureRequest) -> str:
    """The setting that says that standbys are synchronous."""
    return str(request.param)


@pytest.fixture
def site(tmp_path: Path, primary: Primary, trust: str) -> Iterator[Cluster]:
    """Two nodes, a worker and an API process on that server."""
    template = Database(primary.url)
    template.migrate()
    home = tmp_path / "site"
    home.mkdir()
    settings = {"IMGO_STREAMS_TRUST_FAILOVER": trust, "IMGO_AUDIT_INTERVAL": "2"}
    with Cluster(home, template, **SETTINGS, **settings) as cluster:
        yield cluster


@pytest.fixture
def standby(tmp_path: Path, primary: Primary, site: Cluster) -> Standby:
    """A standby that has all that the site's begin has written."""
    return primary.add_standby(tmp_path)


async def follow(world: World, room: str, request: dict[str, Any], node: int = 0) -> Any:
    """A session that asks for this of the room, and what it is told."""
    client = await world.connect("text", node)
    seq = await client.send(7, {"token": await world.token(new_key()), "rooms": {room: request}})
    reply = await client.receive()
    assert reply.seq == seq, reply
    return client, reply.value["rooms"][room]


async def bodies(client: Client, count: int) -> list[tuple[int, Any]]:
    """Offset and body of the next messages."""
    frames = [await client.receive() for _ in range(count)]
    assert {frame.op for frame in frames} == {MESSAGE}, frames
    return [(frame.offset, json.loads(frame.body)) for frame in frames]


@pytest.mark.long
async def test_a_failover_changes_the_epoch_unless_standbys_are_trusted(
    site: Cluster, primary: Primary, standby: Standby, enter: Enter, trust: str
) -> None:
    world = await enter(site)
    room = new_kept_room()
    followers = [(await follow(world, room, {}, node))[0] for node in (0, 1)]
    await push_to(world, room, "a", "b", "c")
    for follower in followers:
        assert await bodies(follower, 3) == [(1, "a"), (2, "b"), (3, "c")]
    await world.settle()
    _, old = await follow(world, room, {})
    assert old["offset"] == 3
    lsn = primary.lsn()
    await eventually(lambda: standby.has(lsn))
    if trust == "0":
        standby.disconnect()
        await eventually(lambda: not standby.execute("SELECT count(*) FROM pg_stat_wal_receiver"))
    await push_to(world, room, "tail 4", "tail 5")
    for follower in followers:
        assert await bodies(follower, 2) == [(4, "tail 4"), (5, "tail 5")]
    if trust == "1":
        tail = primary.lsn()
        await eventually(lambda: standby.has(tail))

    primary.kill()
    standby.take_over()
    await eventually(lambda: is_pushed(world, room, "new"), timeout=60)

    if trust == "1":  # positions keep their meaning, because the standby has all
        for follower in followers:
            assert await bodies(follower, 1) == [(6, "new")]
        client, reply = await follow(world, room, {"epoch": old["epoch"], "offset": 3})
        assert reply == {"epoch": old["epoch"], "offset": 6, "recovered": True}
        assert await bodies(client, 3) == [(4, "tail 4"), (5, "tail 5"), (6, "new")]
        return
    positions = []
    for follower in followers:
        gap = await follower.receive(60)
        assert gap.op == STREAM_GAP, gap
        assert (gap.value["room"], gap.value["epoch"] != old["epoch"]) == (room, True)
        positions.append(gap.value)
    assert positions[0]["epoch"] == positions[1]["epoch"]
    for offset in (3, 4, 5):
        _, reply = await follow(world, room, {"epoch": old["epoch"], "offset": offset})
        assert (reply["epoch"], reply["recovered"]) == (positions[0]["epoch"], False)
    top = reply["offset"]
    await push_to(world, room, "live")
    for follower, position in zip(followers, positions, strict=True):
        later = await bodies(follower, top + 1 - position["offset"])
        assert [number for number, _ in later] == list(range(position["offset"] + 1, top + 2))
        assert later[-1] == (top + 1, "live")


async def is_pushed(world: World, room: str, body: str) -> bool:
    """Whether the API accepts a push again."""
    push = {"to": {"room": room}, "body": body, "dedupe_id": f"{room} {body}"}
    try:
        answer = await world.api.http.post("/api/v1/pushes", json=push)
    except httpx.TransportError:
        return False
    return answer.status_code == 202
