"""Why a key has no session, and how far a push to a room came: from real nodes."""

from typing import Any

from tests import eventually

from .harness import manage
from .world import World, new_key, new_room


async def state_of(world: World, key: str, *names: str) -> Any:
    """The key, as soon as these events are recorded of it."""
    state: dict[str, Any] = {}

    async def is_recorded() -> bool:
        state.update(await world.api.key(key))
        return all(state[name] for name in names)

    await eventually(is_recorded)
    return state


async def test_key_shows_its_last_opening_refusal_and_closing(world: World) -> None:
    key = new_key()
    token = await world.api.make_token(key, rooms=["mine"])
    client = await world.connect("text")
    await client.auth({"token": token, "platform": "ios", "ack": True})
    number = await world.api.push({"key": key}, b'"unacknowledged"')
    await client.receive()
    state = await state_of(world, key, "opened")
    assert (state["opened"]["session"], state["opened"]["platform"]) == (
        state["sessions"][0]["id"],
        "ios",
    )
    assert state["sessions"][0]["since"].endswith("Z")

    async def is_told() -> bool:
        return bool((await world.api.key(key))["unacknowledged"] == 1)

    await eventually(is_told)
    refused = await world.connect("text", node=1)
    await refused.refused({"token": token, "rooms": ["other"]})
    await client.close()
    state = await state_of(world, key, "opened", "refused", "closed")
    assert (state["refused"]["code"], state["closed"]["session"]) == (
        4506,
        state["opened"]["session"],
    )
    assert "code" not in state["closed"]
    text = manage(world.system.environment, "explain", key)
    assert "Not allowed in the room" in text
    assert "sent to 1 session" in text
    assert str(number) in text


async def test_room_push_says_how_many_sessions_it_was_written_to(world: World) -> None:
    room = new_room()
    for place in range(3):
        await world.session(new_key(), "tcp", node=place, rooms=[room])
    numbers = [await world.api.push({"room": room}, b'"hello"') for _ in range(3)]
    nodes = min(2, len(world.system.nodes))

    async def is_told() -> bool:
        records = [await world.api.get(f"/api/v1/pushes/{number}") for number in numbers]
        return all(
            push_record["written"] == {"sessions": 3, "nodes": nodes} for push_record in records
        )

    await eventually(is_told)
    empty = await world.api.push({"room": new_room()}, b"1")
    record = await world.api.get(f"/api/v1/pushes/{empty}")
    assert record["written"] == {"sessions": 0, "nodes": 0}
