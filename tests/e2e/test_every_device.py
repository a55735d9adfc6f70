"""Devices of one key: each gets everything, and a report of what the others have read."""

from itertools import chain

from imgo_client import Client
from tests import eventually

from .test_python_client import take, url_of
from .world import World, new_key


def device(world: World, token: str, name: str, node: int = 0) -> Client:
    """A client of a device. The node is another one where there are several."""
    return Client(url_of(world.node(node), "ws"), token, device=name, backoff=(0.05, 0.5))


async def test_each_device_gets_everything_and_reports_of_others(world: World) -> None:
    key = f"each-{new_key()}"
    token = await world.token(key)
    read: list[list[int]] = []
    phone, laptop = device(world, token, "phone"), device(world, token, "laptop", 1)
    laptop.on("read", read.append)
    async with laptop:
        await laptop.connected()
        async with phone:
            await phone.connected()
            ids = [await world.api.push({"key": key}, n) for n in range(2)]
            assert [message.id for message in await take(phone, 2)] == ids
            await eventually(lambda: sorted(chain(*read)) == ids)
        # It has taken none of them.
    await world.wait_for_pending(key, 2)
    async with device(world, token, "laptop") as again:
        assert [message.id for message in await take(again, 2)] == ids
    await world.wait_for_pending(key, 0)
