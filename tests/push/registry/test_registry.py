"""The registries, in memory and in Redis: one suite for what they share, one for what Redis adds.

Both are written by a node on an event loop and read by the API from any thread.
"""

import asyncio
from collections.abc import Callable

import pytest
import redis

from imgo_site.errors import TooManySessions, Unavailable
from push.registry.base import Entry, FullestRooms, KeyMatches, NodeEntry, Registry
from push.registry.memory_registry import MemoryRegistry, MemoryTables
from push.registry.redis_keys import CLIENT_NAME
from push.registry.redis_registry import RedisRegistry
from tests import eventually

NODE = NodeEntry("n1", "one:8000", 1, 100.0)


def entry(name: str, key: str = "u1", node: str = "n1", since: float | None = None) -> Entry:
    since = float(name.strip("s-") or 0) if since is None else since
    return Entry(name, key, node, "tcp", "192.0.2.1", "web", since)


@pytest.fixture
async def make(settings, redis_client):
    """Makes a node's registry in the same Redis."""
    made: list[RedisRegistry] = []

    async def one(node: NodeEntry) -> RedisRegistry:
        found = RedisRegistry(settings.REDIS_URL)
        await found.start(node)
        made.append(found)
        return found

    yield one
    for registry in made:
        await registry.stop()


@pytest.fixture(params=["memory", "redis"])
async def registry(request, make) -> Registry:
    if request.param == "redis":
        return await make(NODE)
    found = MemoryRegistry()
    await found.start(NODE)
    return found


async def add(registry: Registry, *entries: Entry, cap: int = 0, evict: bool = False) -> list:
    return [e for one in entries for e in await registry.add(one, cap, evict=evict)]


# What both do


async def test_sessions_of_a_key_oldest_first(registry):
    await add(registry, entry("s1"), entry("s2"), entry("s9", "u2"), entry("s3"))
    assert [e.id for e in registry.sessions("u1")] == ["s1", "s2", "s3"]
    assert registry.sessions("u2") == [entry("s9", "u2")]
    assert registry.sessions("nobody") == []


async def test_a_removed_session_is_gone_from_its_rooms_too(registry):
    one, two = entry("s1"), entry("s2")
    await add(registry, one, two)
    await registry.join(one, ["a", "b"])
    await registry.join(two, ["a"])
    await registry.remove(one, {"a", "b"})
    await registry.remove(one, {"a", "b"})
    assert registry.sessions("u1") == [two]
    assert registry.rooms() == {"a": 1}


async def test_rooms_and_their_members(registry):
    entries = [entry("s1", "u2"), entry("s2", "u1"), entry("s3", "u1")]
    await add(registry, *entries)
    for one in entries:
        await registry.join(one, ["lobby", f"of {one.id}"])
    await registry.join(entries[0], [])
    assert registry.rooms() == {"lobby": 3, "of s1": 1, "of s2": 1, "of s3": 1}
    assert registry.members("lobby") == [("u1", "s2"), ("u1", "s3"), ("u2", "s1")]
    assert registry.members("nowhere") == []
    assert registry.peek("lobby", 10) == (3, registry.members("lobby"))
    count, some = registry.peek("lobby", 2)
    assert count == 3
    assert len(some) == 2
    assert set(some) < set(registry.members("lobby"))
    assert registry.peek("nowhere", 2) == (0, [])
    await registry.leave(entries[0], "lobby")
    await registry.leave(entries[0], "nowhere")
    assert registry.members("lobby") == [("u1", "s2"), ("u1", "s3")]


async def test_the_fullest_rooms_first(registry):
    for place, rooms in enumerate((["a", "b", "c"], ["b", "c"], ["c"], ["d"])):
        await add(registry, entry(f"s{place}"))
        await registry.join(entry(f"s{place}"), rooms)
    assert registry.fullest_rooms(3) == FullestRooms(4, False, [("c", 3), ("b", 2), ("a", 1)])
    await registry.leave(entry("s1"), "c")
    await registry.leave(entry("s2"), "c")
    await registry.leave(entry("s2"), "nowhere")
    assert registry.fullest_rooms(2) == FullestRooms(4, False, [("b", 2), ("a", 1)])


async def test_there_are_no_rooms(registry):
    assert registry.fullest_rooms(3) == FullestRooms(0, False, [])


async def test_connected_keys_are_found_by_a_part_of_their_name(registry):
    await add(registry, entry("s1", "ann"), entry("s2", "ann"), entry("s3", "hanna"))
    await add(registry, entry("s4", "bob"))
    assert sorted(registry.find_keys("ann", 9).rows) == [("ann", 2), ("hanna", 1)]
    assert sorted(registry.find_keys("", 9).rows) == [("ann", 2), ("bob", 1), ("hanna", 1)]
    assert registry.find_keys("x", 9) == KeyMatches([], 0, 3)


async def test_all_connected_keys_are_found_a_few_at_a_time(registry, monkeypatch):
    monkeypatch.setattr("push.registry.redis_queries.SCAN", 10)
    await add(registry, *(entry(f"s{n}", f"u{n}") for n in range(300)))
    found: dict[str, int] = {}
    pages, cursor = 0, 0
    while cursor or not pages:
        some = registry.find_keys("u", 20, cursor)
        assert len(some.rows) < 100
        found |= some.rows
        pages, cursor = pages + 1, some.cursor
    assert found == {f"u{n}": 1 for n in range(300)}
    assert pages > 3


async def test_a_node_says_how_much_it_delivered(registry):
    assert [node.deliveries for node in registry.nodes()] == [0]
    await registry.report(5, {})
    assert [node.deliveries for node in registry.nodes()] == [5]


async def test_a_node_says_that_it_takes_no_more(registry):
    await registry.report(0, {})
    assert [node.is_draining for node in registry.nodes()] == [False]
    await registry.report(0, {}, is_draining=True)
    assert [node.is_draining for node in registry.nodes()] == [True]
    await registry.renew(0, [])
    assert [node.is_draining for node in registry.nodes()] == [True]


async def test_a_node_says_what_waits_for_its_sessions(registry):
    await add(registry, entry("s1"), entry("s2"))
    await registry.report(0, {"s2": 700})
    assert registry.waiting([entry("s1"), entry("s2")]) == [0, 700]
    await registry.report(0, {"s1": 8})
    assert registry.waiting([entry("s1"), entry("s2")]) == [8, 0]
    await registry.report(0, {})
    assert registry.waiting([entry("s1")]) == [0]
    assert registry.waiting([]) == []


async def test_rooms_have_sizes_those_too_that_are_empty(registry):
    await add(registry, entry("s1"), entry("s2"))
    await registry.join(entry("s1"), ["a", "b"])
    await registry.join(entry("s2"), ["b"])
    assert registry.sizes(["b", "none", "a"]) == [2, 0, 1]
    assert registry.sizes([]) == []
    assert registry.sizes(["b", "none", "a"], "n1") == [0, 0, 0]


async def test_a_room_that_the_last_has_left_is_no_room(registry):
    await add(registry, entry("s1"))
    await registry.join(entry("s1"), ["a"])
    await registry.leave(entry("s1"), "a")
    assert registry.rooms() == {}


@pytest.mark.parametrize("name", ["ä/ö", "*", "a b", "\U0001f600", "x" * 255, "{a}:b"])
async def test_any_name_is_a_key_and_a_room(registry, name):
    await add(registry, entry("s1", name))
    await registry.join(entry("s1", name), [name])
    assert [e.key for e in registry.sessions(name)] == [name]
    assert registry.rooms() == {name: 1}
    assert registry.members(name) == [(name, "s1")]


async def test_a_node_counts_its_sessions(registry):
    assert registry.nodes() == [NODE]
    await add(registry, entry("s1"), entry("s2"), entry("s3", "u2"))
    await registry.remove(entry("s1"), [])
    assert [node.sessions for node in registry.nodes()] == [2]


async def test_a_node_that_has_stopped_leaves_nothing(registry):
    await add(registry, entry("s1"))
    await registry.join(entry("s1"), ["a"])
    await registry.stop()
    try:
        assert registry.nodes() == []
        assert registry.sessions("u1") == []
        assert (registry.rooms(), registry.members("a")) == ({}, [])
    finally:
        await registry.start(NODE)  # for who stops it again


async def test_at_the_cap_the_next_is_refused(registry):
    await add(registry, entry("s1"), entry("s2"), cap=2)
    with pytest.raises(TooManySessions):
        await registry.add(entry("s3"), 2, evict=False)
    assert [e.id for e in registry.sessions("u1")] == ["s1", "s2"]
    assert await registry.add(entry("s4", "u2"), 2, evict=False) == []
    await registry.remove(entry("s1"), [])
    assert await registry.add(entry("s3"), 2, evict=False) == []


async def test_without_a_cap_there_is_none(registry):
    await add(registry, *(entry(f"s{n}") for n in range(100)))
    assert len(registry.sessions("u1")) == 100


async def test_at_the_cap_the_oldest_makes_room(registry):
    await add(registry, *(entry(f"s{n}") for n in range(1, 5)))
    assert await registry.add(entry("s5"), 4, evict=True) == [entry("s1")]
    # The cap was lowered: as many go as it takes.
    assert await registry.add(entry("s6"), 2, evict=True) == [entry(f"s{n}") for n in (2, 3, 4)]
    assert [e.id for e in registry.sessions("u1")] == ["s5", "s6"]
    assert await registry.add(entry("s7", "u2"), 1, evict=True) == []


async def test_a_forgotten_node_that_is_alive_comes_back_with_all_its_sessions(registry):
    there = [(entry("s1"), {"a", "b"}), (entry("s2", "u2"), set())]
    for one, rooms in there:
        await registry.add(one, 0, evict=False)
        await registry.join(one, rooms)
    registry.forget_node("n1")
    assert registry.sessions("u1") == []
    assert registry.rooms() == {}
    await registry.renew(2, there)
    assert registry.sessions("u1") == [entry("s1")]
    assert registry.sessions("u2") == [entry("s2", "u2")]
    assert registry.rooms() == {"a": 1, "b": 1}
    assert [node.sessions for node in registry.nodes()] == [2]


async def test_a_session_that_comes_before_the_forgotten_node_is_back(registry):
    await add(registry, entry("s1"))
    registry.forget_node("n1")
    await add(registry, entry("s2"))
    await registry.renew(2, [(entry("s1"), {"a"}), (entry("s2"), set())])
    assert [e.id for e in registry.sessions("u1")] == ["s1", "s2"]
    assert registry.rooms() == {"a": 1}


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_registries_of_two_nodes_in_one_process_are_independent(kind, make):
    tables, nodes = MemoryTables(), [NODE, NodeEntry("n2", "two:8000", 2, 100.0)]
    if kind == "redis":
        first, second = [await make(node) for node in nodes]
    else:
        first, second = MemoryRegistry(tables), MemoryRegistry(tables)
        await first.start(nodes[0])
        await second.start(nodes[1])
    here, there = entry("s1"), entry("s2", node="n2")
    for registry, one in ((first, here), (second, there)):
        await add(registry, one)
        await registry.join(one, ["a"])
    await first.report(3, {"s1": 7}, is_draining=True)
    await second.report(5, {})
    assert first.sessions("u1") == second.sessions("u1") == [here, there]
    assert (first.rooms(), first.sizes(["a"], "n1"), second.sizes(["a"])) == ({"a": 2}, [1], [2])
    assert first.waiting([here, there]) == [7, 0]
    found = [(one.sessions, one.deliveries, one.is_draining) for one in second.nodes()]
    assert found == [(1, 3, True), (1, 5, False)]
    first.forget_node("n2")
    assert second.sessions("u1") == [here]
    await second.renew(1, [(there, {"a"})])
    await first.stop()
    assert [one.id for one in second.nodes()] == ["n2"]
    assert (second.sessions("u1"), second.rooms()) == ([there], {"a": 1})
    if kind == "redis":
        await first.start(nodes[0])  # the fixture stops both


async def test_forgetting_another_node_changes_nothing(registry):
    await add(registry, entry("s1"))
    registry.forget_node("n2")
    assert registry.sessions("u1") == [entry("s1")]


async def test_renewing_what_is_there_changes_nothing(registry):
    await add(registry, entry("s1"))
    await registry.join(entry("s1"), ["a"])
    for _ in range(3):
        await registry.renew(1, [(entry("s1"), {"a"})])
    assert registry.sessions("u1") == [entry("s1")]
    assert registry.rooms() == {"a": 1}
    assert [node.sessions for node in registry.nodes()] == [1]


async def test_a_session_that_is_being_added_counts_in_a_renewal(registry):
    adding = asyncio.create_task(registry.add(entry("s1"), 0, evict=False))
    await asyncio.sleep(0)  # it is on its way to Redis
    await registry.renew(0, [])
    await adding
    assert [node.sessions for node in registry.nodes()] == [1]


# What Redis adds


@pytest.fixture
async def two(make):
    return await make(NODE), await make(NodeEntry("n2", "two:8000", 2, 200.0))


async def test_every_node_sees_all_nodes(two):
    first, second = two
    await add(first, entry("s1"))
    await add(second, entry("s2", node="n2"), entry("s3", "u2", node="n2"))
    await first.join(entry("s1"), ["a"])
    await second.join(entry("s2", node="n2"), ["a", "b"])
    for registry in two:
        assert [(n.number, n.sessions) for n in registry.nodes()] == [(1, 1), (2, 2)]
        assert [e.id for e in registry.sessions("u1")] == ["s1", "s2"]
        assert registry.rooms() == {"a": 2, "b": 1}
        assert registry.members("a") == [("u1", "s1"), ("u1", "s2")]


@pytest.fixture
def rooms_of(redis_client):
    """Writes so many rooms with a session each for a node, from a number on."""

    def write(node: str, begin: int, count: int) -> None:
        for start in range(begin, begin + count, 10_000):
            names = range(start, min(start + 10_000, begin + count))
            redis_client.zadd(f"imgo:registry:fullest:{node}", {f"r{n}": 1 for n in names})

    return write


async def test_the_fullest_rooms_of_all_nodes(two, rooms_of):
    first, second = two
    for node, registry in (("n1", first), ("n2", second)):
        for place in range(3):
            await registry.join(entry(f"s{place}", node=node), ["lobby", f"own-{node}"])
    found = first.fullest_rooms(3)
    assert found == FullestRooms(3, False, [("lobby", 6), ("own-n1", 3), ("own-n2", 3)])


async def test_many_rooms_of_one_node_are_counted(make, rooms_of):
    registry = await make(NODE)
    rooms_of("n1", 0, 5000)
    await registry.join(entry("s1"), ["r4999"])
    await registry.join(entry("s2"), ["r4999"])
    assert registry.fullest_rooms(1) == FullestRooms(5000, False, [("r4999", 2)])


async def test_how_many_rooms_several_nodes_have_is_estimated(two, rooms_of):
    rooms_of("n1", 0, 6000)
    rooms_of("n2", 3000, 6000)
    found = two[0].fullest_rooms(1)
    assert found.is_estimate
    assert found.count == pytest.approx(9000, rel=0.1)
    rooms_of("n2", 0, 3000)  # now the second has all of the first's
    assert two[0].fullest_rooms(1).count == pytest.approx(9000, rel=0.1)


async def test_the_look_for_keys_is_bounded(make, monkeypatch):
    monkeypatch.setattr("push.registry.redis_queries.SCAN", 10)
    monkeypatch.setattr("push.registry.redis_queries.SCAN_MAX", 50)
    registry = await make(NODE)
    await add(registry, *(entry(f"s{n}", f"u{n}") for n in range(300)))
    some = registry.find_keys("nobody", 20)
    assert some.rows == []
    assert some.cursor
    assert 50 <= some.examined < 100


async def test_the_cap_counts_the_sessions_of_all_nodes(two):
    first, second = two
    await add(first, entry("s1"), cap=2)
    await add(second, entry("s2", node="n2"), cap=2)
    with pytest.raises(TooManySessions):
        await first.add(entry("s3"), 2, evict=False)
    assert await first.add(entry("s3"), 1, evict=True) == [entry("s1"), entry("s2", node="n2")]


async def test_at_once_from_all_nodes_the_cap_holds(two):
    tries = [
        registry.add(entry(f"s{n}", node=f"n{place}"), 5, evict=False)
        for place, registry in enumerate(two, start=1)
        for n in range(10 * place, 10 * place + 10)
    ]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(answer == [] for answer in answers) == 5
    assert sum(isinstance(answer, TooManySessions) for answer in answers) == 15
    assert len(two[0].sessions("u1")) == 5


@pytest.fixture
def dies(redis_client) -> Callable[[str], None]:
    """A node is gone without a word: its lease has ended."""

    def end_lease(node: str) -> None:
        assert redis_client.delete(f"imgo:registry:node:{node}") == 1

    return end_lease


async def test_sessions_of_a_dead_node_do_not_count(two, dies):
    first, second = two
    await add(second, entry("s1", node="n2"), entry("s2", node="n2"))
    await second.join(entry("s1", node="n2"), ["a"])
    dies("n2")
    assert [node.id for node in first.nodes()] == ["n1"]
    assert first.sessions("u1") == []
    assert (first.rooms(), first.members("a")) == ({}, [])
    assert first.fullest_rooms(9) == FullestRooms(0, False, [])
    assert first.find_keys("", 9).rows == []
    assert await first.add(entry("s3"), 1, evict=True) == []
    assert first.sessions("u1") == [entry("s3")]
    with pytest.raises(TooManySessions):
        await first.add(entry("s4"), 1, evict=False)


async def test_a_lease_ends_by_itself(make, imgo):
    imgo(NODE_LEASE=0.2)
    registry = await make(NODE)
    await add(registry, entry("s1"))
    await eventually(lambda: registry.nodes() == [])
    assert registry.sessions("u1") == []


async def test_a_renewed_lease_goes_on(make, imgo, redis_client):
    imgo(NODE_LEASE=30.0)
    registry = await make(NODE)
    redis_client.pexpire("imgo:registry:node:n1", 1000)
    await registry.renew(0, [])
    assert redis_client.pttl("imgo:registry:node:n1") > 25_000


async def test_everything_belonging_to_a_node_ends_some_time(make, redis_client):
    registry = await make(NODE)
    await add(registry, entry("s1"))
    await registry.join(entry("s1"), ["a"])
    await registry.renew(1, [(entry("s1"), {"a"})])
    await registry.report(1, {"s1": 7})
    forever = {name for name in redis_client.keys("*") if redis_client.ttl(name) == -1}
    assert forever == {"imgo:registry:nodes"}


async def test_what_was_lost_is_written_again(two, redis_client):
    first, second = two
    await add(first, entry("s1"), entry("s2", "u2"))
    await first.join(entry("s1"), ["a"])
    redis_client.flushdb()
    assert (second.nodes(), second.sessions("u1"), second.rooms()) == ([], [], {})
    await first.renew(2, [(entry("s1"), {"a"}), (entry("s2", "u2"), set())])
    assert [(node.id, node.sessions) for node in second.nodes()] == [("n1", 2)]
    assert second.sessions("u1") == [entry("s1")]
    assert second.sessions("u2") == [entry("s2", "u2")]
    assert second.members("a") == [("u1", "s1")]


async def test_a_session_that_comes_after_the_loss_does_not_hide_it(two, redis_client):
    first, _ = two
    await add(first, entry("s1"))
    redis_client.flushdb()
    await add(first, entry("s2"))
    await first.renew(2, [(entry("s1"), set()), (entry("s2"), set())])
    assert [e.id for e in first.sessions("u1")] == ["s1", "s2"]
    assert [node.sessions for node in first.nodes()] == [2]


async def test_more_than_one_pipeline_is_written_again(make, redis_client):
    registry = await make(NODE)
    there = [(entry(f"s{n}", f"u{n}"), {f"r{n % 700}"}) for n in range(1100)]
    redis_client.flushdb()
    await registry.renew(len(there), there)
    assert len(registry.rooms()) == 700
    assert sum(registry.rooms().values()) == 1100
    assert registry.sessions("u1099") == [entry("s1099", "u1099")]


async def test_the_keys_of_long_sessions_are_renewed_in_turns(make, redis_client, monkeypatch):
    monkeypatch.setattr("push.registry.redis_writer.KEY_RENEWAL", 2)
    registry = await make(NODE)
    there = [(entry(f"s{n}", f"u{n}"), set()) for n in range(6)]
    await add(registry, *(one for one, _ in there))
    names = redis_client.keys("imgo:registry:key:*")
    assert len(names) == 6
    for name in names:
        redis_client.expire(name, 100)
    for _ in range(4):
        await registry.renew(6, there)
    assert min(redis_client.ttl(name) for name in names) > 80_000


async def test_a_stopped_node_leaves_the_others_alone(two):
    first, second = two
    await add(first, entry("s1"))
    await add(second, entry("s2", node="n2"))
    await first.join(entry("s1"), ["a"])
    await second.join(entry("s2", node="n2"), ["a"])
    await first.stop()
    assert [node.id for node in second.nodes()] == ["n2"]
    assert [e.id for e in second.sessions("u1")] == ["s2"]
    assert second.members("a") == [("u1", "s2")]
    await first.start(NODE)


@pytest.fixture
async def away(closed_port):
    """A registry whose Redis cannot be reached."""
    registry = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    registry._node = NODE
    yield registry
    await registry._client.aclose()


@pytest.mark.parametrize(
    "write",
    [
        lambda r: r.start(NODE),
        lambda r: r.add(entry("s1"), 0, evict=False),
        lambda r: r.join(entry("s1"), ["a"]),
        lambda r: r.leave(entry("s1"), "a"),
        lambda r: r.remove(entry("s1"), ["a"]),
        lambda r: r.renew(0, []),
        lambda r: r.report(0, {}),
    ],
    ids=["start", "add", "join", "leave", "remove", "renew", "report"],
)
async def test_a_nodes_write_says_that_redis_is_away(away, write):
    with pytest.raises(Unavailable):
        await write(away)


@pytest.mark.parametrize(
    "read",
    [
        lambda r: r.sessions("u1"),
        lambda r: r.rooms(),
        lambda r: r.fullest_rooms(1),
        lambda r: r.find_keys("", 1),
        lambda r: r.members("a"),
        lambda r: r.nodes(),
        lambda r: r.forget_node("n1"),
    ],
    ids=["sessions", "rooms", "fullest_rooms", "find_keys", "members", "nodes", "forget_node"],
)
def test_what_the_api_reads_says_that_redis_is_away(closed_port, read):
    registry = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    with pytest.raises(Unavailable):
        read(registry)


async def test_a_renewal_removes_what_failed_writes_have_left(make, monkeypatch):
    registry = await make(NODE)
    stays, goes, late = entry("s1"), entry("s2"), entry("s3")
    await add(registry, stays, goes)
    for one in (stays, goes):
        await registry.join(one, ["a", "b"])
    send = registry._send

    async def lose_the_reply(batch):
        if any(late in command for commands, _ in batch for command in commands):
            await send(batch)
        raise redis.ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_send", lose_the_reply)
        for write in (
            registry.leave(stays, "a"),
            registry.leave(stays, "b"),
            registry.remove(goes, ["a", "b"]),
            registry.add(late, 0, evict=False),
            registry.renew(1, [(stays, {"b"})]),
        ):
            with pytest.raises(Unavailable):
                await write
    assert {one.id for one in registry.sessions("u1")} == {"s1", "s2", "s3"}
    await registry.renew(1, [(stays, {"b"})])  # it is in b again
    assert registry.sessions("u1") == [stays]
    assert registry.rooms() == {"b": 1}
    assert ([node.sessions for node in registry.nodes()], registry._unsure) == ([1], {})


async def test_a_registry_works_again_after_its_connections_broke(make, redis_client):
    registry = await make(NODE)
    await add(registry, entry("s1"))
    assert registry.sessions("u1")
    mine = [one["id"] for one in redis_client.client_list() if one["name"] == CLIENT_NAME]
    assert len(mine) >= 2  # what writes and what reads
    for client in mine:
        redis_client.client_kill_filter(_id=client)

    async def works() -> bool:
        try:
            await registry.renew(1, [(entry("s1"), set())])
            return bool(registry.sessions("u1"))
        except Unavailable:
            return False

    await eventually(works)


async def test_additions_in_one_pipeline_with_a_removal_are_counted(make, monkeypatch):
    """Adjacent additions share a command and a reply; the other replies keep their places."""
    registry = await make(NODE)
    first, *others = (entry(f"s{number}") for number in range(5))
    await add(registry, first)
    pipelines = []
    send = registry._send

    async def count(batch):
        replies = await send(batch)
        pipelines.append(len(batch))
        return replies

    monkeypatch.setattr(registry, "_send", count)
    await asyncio.gather(
        *(registry.add(one, 0, evict=False) for one in others[:2]),
        registry.remove(first, []),
        *(registry.add(one, 0, evict=False) for one in others[2:]),
    )
    assert pipelines == [5]
    assert {one.id for one in registry.sessions("u1")} == {one.id for one in others}
    assert [node.sessions for node in registry.nodes()] == [4]
