"""Many new devices connect at the same moment, as after the release of an app with devices."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests import PATIENCE

from .clients import AUTH, AUTH_REPLY, Client, Closed
from .harness import Cluster, System
from .world import World, new_key

KEYS = 100
DEVICES = 10  # of each key: `DEVICES_MAX`


@pytest.mark.long
async def test_new_devices_that_connect_at_once_are_all_admitted(
    make_cluster: Callable[..., Cluster],
    own_system: Callable[[System], System],
    enter: Callable[[System], Awaitable[World]],
) -> None:
    world = await enter(own_system(make_cluster(nodes=1)))
    keys = [f"each-{new_key()}" for _ in range(KEYS)]
    tokens = [await world.token(key) for key in keys]
    places = [(token, f"device-{number}") for token in tokens for number in range(DEVICES)]
    clients = [await world.connect("tcp") for _ in places]

    async def open_session(client: Client, token: str, name: str) -> int | str:
        await client.send(AUTH, {"token": token, "ack": True, "device": name})
        try:
            return (await client.receive(PATIENCE)).op
        except Closed as closed:
            return f"closed: {closed}"

    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(
            *(open_session(client, *place) for client, place in zip(clients, places, strict=True))
        )
    assert answers == [AUTH_REPLY] * len(places)
    pushed = await world.api.push({"keys": keys}, "for all")
    assert {(await client.receive(PATIENCE)).id for client in clients} == {pushed}
