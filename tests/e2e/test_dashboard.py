"""The dashboard's live path: a signed-in operator's own session, and the pages beside it."""

import json
import re
from typing import Any

import pytest

from tests import eventually

from .frames import JOIN
from .harness import Cluster, Embedded, System
from .operators import SignIn
from .test_identity import Enter
from .world import new_key, new_room

ROOM = "imgo.dashboard"
UNAUTHORIZED, REVOKED, KICKED = 4401, 4403, 4504


@pytest.fixture(params=["embedded", "cluster"])
def system(request: pytest.FixtureRequest) -> System:
    """The shared installations; the pages of the cluster are served by gunicorn."""
    system: System = request.getfixturevalue(request.param)
    assert isinstance(system, (Embedded, Cluster))
    return system


async def next_picture(client: Any) -> dict[str, Any]:
    """The next picture; pushes of other tests to everyone come here too."""
    while True:
        body = json.loads((await client.receive()).body)
        if isinstance(body, dict) and "mark" in body:
            return body


async def test_an_operator_sees_what_is_going_on(
    system: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(system), await sign_in(system)
    key, room = new_key(), new_room()
    await world.session(key, node=1, rooms=[room])
    page = await operator.browser.get("/dashboard/")
    client = await operator.watch(world)
    await client.auth({"rooms": [ROOM]})
    # Rooms are counted now and then: the first pictures may be from before.
    while (pushed := await next_picture(client))["rooms"]["watching"] < 1:
        pass

    async def fetch() -> Any:
        data = (await operator.browser.get("/dashboard/data")).json()
        return data if data["rooms"]["watching"] else None

    fetched = await eventually(fetch)
    assert (await next_picture(client))["at"] > pushed["at"]
    assert page.status_code == 200
    assert pushed["mark"] in page.text
    for picture in (pushed, fetched):
        assert picture["mark"] == pushed["mark"]
        assert picture["problems"] == []
        assert picture["nodes"]["count"] == len(system.nodes)
        assert picture["sessions"] >= 2
        assert picture["rooms"]["watching"] >= 1
        assert picture["rooms"]["count"] >= 1
    key_page = await operator.browser.get("/dashboard/key", params={"name": key})
    assert str(world.node(1).http_port) in key_page.text  # in the name of its node


async def test_a_push_to_a_room_is_a_delivery_for_each_session_in_it(
    system: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(system), await sign_in(system)
    room = new_room()
    sessions = [await world.session(new_key(), node=n, rooms=[room]) for n in range(4)]

    async def deliveries() -> int:
        data = (await operator.browser.get("/dashboard/data")).json()
        return int(data["deliveries"])

    before = await deliveries()
    await world.api.push({"room": room}, b"1")
    for session in sessions:
        assert await session.receive_bodies(1) == [b"1"]

    async def are_counted() -> bool:
        return await deliveries() >= before + 4

    await eventually(are_counted)


async def test_an_operator_finds_connected_keys_and_rooms(
    system: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(system), await sign_in(system)
    key, room = new_key(), new_room()
    for n in range(2):
        await world.session(key, node=n, rooms=[room])
    keys = await operator.browser.get("/dashboard/keys", params={"part": key[3:-1]})
    assert f'name={key}">{key}</a></th><td class="number">2<' in keys.text
    rooms = await operator.browser.get("/dashboard/rooms")
    assert f'name={room}">{room}</a></th><td class="number">2<' in rooms.text


async def test_picture_of_cluster_lists_its_api_process_and_worker(
    cluster: System, sign_in: SignIn
) -> None:
    operator = await sign_in(cluster)

    async def kinds() -> dict[str, list[int]]:
        picture = (await operator.browser.get("/dashboard/data")).json()
        return {row["kind"]: row["partitions"] for row in picture["processes"]["rows"]}

    async def are_listed() -> bool:
        return await kinds() == {"api": [], "worker": [0, 1, 2, 3]}

    await eventually(are_listed)


async def test_picture_counts_refusals_and_closes(
    system: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(system), await sign_in(system)

    async def tally() -> dict[str, int]:
        tally: dict[str, int] = (await operator.browser.get("/dashboard/data")).json()["tally"]
        return tally

    before = await tally()
    stranger = await world.connect("tcp")
    assert (await stranger.refused({"token": "nobody's", "platform": "e2e"})).code == UNAUTHORIZED
    client = await world.session(new_key())
    await client.close()

    async def are_counted() -> bool:
        now = await tally()
        names = ("refusals", "client_closes")
        return all(now[name] > before.get(name, 0) for name in names)

    await eventually(are_counted)


async def test_an_operator_revokes_a_token_and_closes_one_session(
    system: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(system), await sign_in(system)
    key = new_key()
    one, two = [await world.session(key, node=n) for n in range(2)]
    page = await operator.browser.get("/dashboard/key", params={"name": key})
    first = re.findall(r'<th scope="row"[^>]*>([0-9a-f]+-[0-9]+)<', page.text)[0]  # the oldest
    await operator.act("kick-session", {"session": first, "name": key})
    assert (await one.ended()).code == KICKED
    await world.wait_for_sessions(key, 1)
    await operator.act("revoke-token", {"name": key})
    assert (await two.ended()).code == REVOKED


async def test_a_dashboard_takes_nothing_away_from_its_user(
    embedded: System, enter: Enter, sign_in: SignIn
) -> None:
    """The user's own subscriber key is another one."""
    world, operator = await enter(embedded), await sign_in(embedded)
    client = await operator.watch(world)
    await client.auth({"rooms": [ROOM]})
    await world.api.push({"key": operator.pk}, b'"for the user"')
    await world.settle()
    assert await world.api.pending(operator.pk) == 1
    session = await world.session(operator.pk)
    assert await session.receive_bodies(1) == [b'"for the user"']


async def test_who_is_no_operator_sees_nothing(embedded: System, enter: Enter) -> None:
    world = await enter(embedded)
    client = await world.session(new_key(), "text")
    assert (await client.ask(JOIN, ROOM)).value["error"]["code"] == "room_forbidden"
    token = await world.token(new_key())
    other = await world.connect("text", Origin=embedded.api_url)
    assert (await other.refused({"token": token, "rooms": [ROOM]})).code == UNAUTHORIZED


async def test_a_dashboard_is_in_no_other_room(
    embedded: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(embedded), await sign_in(embedded)
    client = await operator.watch(world)
    await client.auth({"rooms": [ROOM]})
    seq = await client.send(JOIN, "lobby")
    while (frame := await client.receive()).seq != seq:
        pass
    assert frame.value["error"]["code"] == "room_forbidden"


async def test_an_operator_pushes_to_a_key_and_closes_its_session(
    system: System, enter: Enter, sign_in: SignIn
) -> None:
    world, operator = await enter(system), await sign_in(system)
    key = new_key()
    client = await world.session(key, node=1)
    form = {"target": "key", "name": key, "body": '{"n": 1}', "dedupe": key, "store": "on"}
    await operator.act("push", form)
    assert await client.receive_bodies(1) == [b'{"n": 1}']
    await operator.act("kick-key", {"name": key})
    ending = await client.ended()
    assert (ending.code, ending.reconnect) == (KICKED, False)
    await world.wait_for_sessions(key, 0)
