"""Queries of presence in Redis: pages of a room's members, and what they say of the room."""

from collections.abc import Iterator

import pytest

from imgo_site.errors import Unavailable
from push.presence import redis_names
from push.presence.redis_reader import RedisPresenceReader
from tests import eventually
from tests.push.presence.nodes import ROOM, PresenceNode

KEYS = ["ann", "bob", "cy", "dan"]


@pytest.fixture
def reader(settings) -> Iterator[RedisPresenceReader]:
    found = RedisPresenceReader(settings.REDIS_URL)
    yield found
    found.close()


@pytest.fixture
async def nodes(make_redis) -> list[PresenceNode]:
    """Two nodes with a room; one key is on both."""
    made = [make_redis("n1"), make_redis("n2")]
    for node in made:
        await node.start()
    for key in reversed(KEYS):
        await made[0].join(key, info={"name": key.title()})
    await made[1].join("bob", info={"name": "Bob"})

    async def are_all_in() -> bool:
        return await made[0].keys() == KEYS

    await eventually(are_all_in)
    return made


@pytest.mark.parametrize(
    ("window", "keys"),
    [
        (slice(0, 10), KEYS),
        (slice(0, 2), ["ann", "bob"]),
        (slice(1, 3), ["bob", "cy"]),
        (slice(3, 4), ["dan"]),
        (slice(4, 8), []),
        (slice(0, 0), []),
        (slice(2, 2), []),
    ],
)
async def test_page_is_a_window_of_the_members_sorted_by_key(nodes, reader, window, keys):
    page = reader.page(ROOM, window)
    assert list(page.parsed()) == [(key, {"name": key.title()}) for key in keys]
    picture = await nodes[1].picture()
    assert (page.version, page.count) == (picture["version"], 4)
    assert not page.is_settling


def test_page_of_a_room_without_members_is_empty(redis_client, reader):
    page = reader.page(ROOM, slice(0, 10))
    assert (page.version, page.count, page.is_settling, page.members) == ("", 0, False, [])


async def test_page_says_that_keys_may_be_missing_while_redis_settles(nodes, reader, redis_client):
    redis_client.set(redis_names.SETTLING, "1")
    page = reader.page(ROOM, slice(0, 1))
    assert page.is_settling
    assert [key for key, _ in page.members] == ["ann"]


def test_closed_reader_opens_a_connection_for_the_next_query(redis_client, reader):
    def connections() -> set[str]:
        clients = redis_client.client_list()
        return {row["id"] for row in clients if row["name"] == "imgo-presence"}

    reader.page(ROOM, slice(0, 1))
    (first,) = connections()
    reader.page(ROOM, slice(0, 1))
    assert connections() == {first}
    reader.close()
    reader.page(ROOM, slice(0, 1))
    assert first not in connections()


def test_redis_that_refuses_connections_is_unavailable(closed_port):
    reader = RedisPresenceReader(f"redis://127.0.0.1:{closed_port}/0")
    with pytest.raises(Unavailable, match=r"^Redis .*\.$") as raised:
        reader.page(ROOM, slice(0, 1))
    assert str(closed_port) not in str(raised.value)
