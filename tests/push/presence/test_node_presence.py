"""Presence of nodes: joins, leaves, the grace, other nodes, deaths and losses."""

import asyncio
import json

import pytest

from accounts.identity import Identity
from imgo_site.errors import Unavailable
from push.presence.base import Change, Joined
from push.session.outgoing import Kind
from tests import eventually
from tests.push.presence.nodes import ROOM, PresenceNode, Watcher, diffs, rounds


async def start(make, *names: str) -> list[PresenceNode]:
    nodes = [make(name) for name in names]
    for node in nodes:
        await node.start()
    return nodes


async def until_keys(node: PresenceNode, *keys: str, turn: bool = False) -> None:
    async def is_so() -> bool:
        if turn:
            await rounds(node)
        return await node.keys() == sorted(keys)

    await eventually(is_so)


async def test_a_snapshot_has_the_session_that_asks_and_all_others(make):
    one, two = await start(make, "n1", "n2")
    await one.join("ann", info={"name": "Ann"})
    await two.join("bob")
    found = await two.picture()
    assert found["members"] == [
        {"key": "ann", "info": {"name": "Ann"}},
        {"key": "bob", "info": {}},
    ]
    assert (found["count"], found["room"], "settling" in found) == (2, ROOM, False)
    await until_keys(one, "ann", "bob")
    assert (await one.picture())["version"] == found["version"]


async def test_others_are_told_of_joins_and_leaves_once(make):
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    first = await two.join("bob", info={"name": "Bob"})
    second = await one.join("bob", info={"name": "Bob"})
    await eventually(lambda: ann.catch_up().joined == ["bob"])
    two.leave(first)
    await asyncio.sleep(0)
    await rounds(one, two)
    assert ann.catch_up().left == []
    one.leave(second)
    await eventually(lambda: ann.catch_up().left == ["bob"])
    assert ann.picture.joined == ["bob"]
    assert ann.picture.members == {"ann": {}}
    assert ann.picture.asks == 0


async def test_a_reload_within_the_grace_is_no_event(make, imgo):
    imgo(PRESENCE_GRACE=0.3)
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    bob = await one.join("bob")
    await eventually(lambda: ann.catch_up().joined == ["bob"])
    version = ann.picture.version
    one.leave(bob)
    bob = await one.join("bob")  # on the same node
    one.leave(bob)
    bob = await two.join("bob")  # on another one
    await eventually(lambda: not one.presence._graces)
    await eventually(lambda: one.presence._writer.is_idle)
    assert await one.keys() == ["ann", "bob"]
    assert ann.catch_up().version == version
    two.leave(bob)
    await eventually(lambda: ann.catch_up().left == ["bob"])


async def test_a_key_that_does_not_come_back_leaves_after_the_grace(make, imgo):
    imgo(PRESENCE_GRACE=0.2)
    (one,) = await start(make, "n1")
    ann, bob = await Watcher.join(one, "ann"), await one.join("bob")
    loop = asyncio.get_running_loop()
    one.leave(bob)
    left_at = loop.time()
    await eventually(lambda: ann.catch_up().left == ["bob"])
    assert loop.time() - left_at >= 0.2


async def test_the_newest_session_of_a_key_decides_its_info(make):
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    await one.join("bob", info={"n": 1})
    await asyncio.sleep(0.002)
    await two.join("bob", info={"n": 2})
    await eventually(lambda: ann.catch_up().members == {"ann": {}, "bob": {"n": 2}})
    await asyncio.sleep(0.002)
    await one.join("bob", info={"n": 1})
    await eventually(lambda: ann.catch_up().members == {"ann": {}, "bob": {"n": 1}})
    assert (await two.picture())["count"] == 2


@pytest.mark.parametrize("newer", ["n1", "n2"])
async def test_the_newest_session_that_is_left_decides_the_info(make, newer):
    """Whether it is on the same node or on another; that of a node that dies counts no more."""
    nodes = {node.name: node for node in await start(make, "n1", "n2")}
    ann = await Watcher.join(nodes["n1"], "ann")
    for n in (1, 2):
        await nodes["n1"].join("bob", info={"n": n})
    last = await nodes[newer].join("bob", info={"n": 3})
    await eventually(lambda: ann.catch_up().members == {"ann": {}, "bob": {"n": 3}})
    nodes[newer].leave(last)
    await eventually(lambda: ann.catch_up().members == {"ann": {}, "bob": {"n": 2}})
    assert ann.catch_up().left == []


async def test_the_info_falls_back_when_the_node_of_the_newest_session_stops(make):
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    await one.join("bob", info={"n": 1})
    await two.join("bob", info={"n": 2})
    await eventually(lambda: ann.catch_up().members.get("bob") == {"n": 2})
    await two.presence.stop()

    async def is_shown() -> bool:
        await rounds(one)
        return ann.catch_up().members.get("bob") == {"n": 1}

    await eventually(is_shown)


async def test_a_newest_session_that_is_back_within_the_grace_changes_no_info(make, imgo):
    imgo(ROOMS={"chat-*": {"presence": True}}, PRESENCE_GRACE=0.2)
    (one,) = await start(make, "n1")
    ann = await Watcher.join(one, "ann")
    await one.join("bob", info={"n": 1})
    last = await one.join("bob", info={"n": 2})
    await eventually(lambda: ann.catch_up().members.get("bob") == {"n": 2})
    version = (await one.picture())["version"]
    one.leave(last)
    again = await one.join("bob", info={"n": 2})
    await eventually(lambda: not one.presence._graces)
    assert (await one.picture())["version"] == version
    one.leave(again)
    await eventually(lambda: ann.catch_up().members.get("bob") == {"n": 1})


async def test_a_renewed_identity_shows_its_info(make):
    (one,) = await start(make, "n1")
    ann, bob = await Watcher.join(one, "ann"), await one.join("bob")
    bob.identity = Identity("bob", info={"name": "Bob"})
    one.presence.renew_info(bob)
    await eventually(lambda: ann.catch_up().members == {"ann": {}, "bob": {"name": "Bob"}})


async def test_sessions_get_diffs_only_if_they_ask_for_them(make):
    (one,) = await start(make, "n1")
    deaf = await one.join("ann", watches=False)
    ears = [await one.join(f"w{kind}", kind=kind) for kind in Kind]
    await one.join("bob")
    await eventually(lambda: all("bob" in str(diffs(one)) for one in ears))
    assert diffs(deaf) == []


async def test_a_busy_room_gets_one_diff_in_an_interval(make, monkeypatch):
    monkeypatch.setattr("push.presence.diff_writer.INTERVAL", 0.2)
    (one,) = await start(make, "n1")
    ann = await Watcher.join(one, "ann")
    begin = asyncio.get_running_loop().time()
    for n in range(60):
        await one.join(f"k{n}")
        await asyncio.sleep(0.01)
    await eventually(lambda: ann.catch_up().count == 61)
    spent = asyncio.get_running_loop().time() - begin
    assert len(diffs(ann.session)) <= spent / 0.2 + 2
    assert ann.picture.asks == 0


async def test_a_storm_costs_few_edits_and_frames(make, imgo):
    imgo(PRESENCE_MAX=100)
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(two, "ann")
    await asyncio.gather(*(one.join(f"k{n}") for n in range(1_000)))
    assert one.presence.rooms[ROOM].edits < 20
    await eventually(lambda: ann.catch_up().count == 1_001)
    found = await two.picture()
    assert (found["count"], found["truncated"], "members" in found) == (1_001, True, False)
    assert len(json.dumps(diffs(ann.session)[-1])) < 200


async def test_a_room_that_falls_below_the_limit_gets_its_members_again(make, imgo):
    imgo(PRESENCE_MAX=3)
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    others = [await two.join(f"k{n}") for n in range(4)]
    await eventually(lambda: ann.catch_up().count == 5)
    assert ann.picture.members is None
    for session in others[:2]:
        two.leave(session)
    await eventually(lambda: ann.catch_up().members is not None)
    assert sorted(ann.picture.members) == ["ann", "k2", "k3"]
    assert diffs(ann.session)[-1]["reset"]
    assert await two.keys() == ["ann", "k2", "k3"]


async def test_a_session_that_has_gone_before_it_entered_is_not_present(make):
    (one,) = await start(make, "n1")
    await one.join("ann")
    gone = await one.join("bob", "chat-2")
    one.leave(gone)
    gone.rooms.add(ROOM)
    await one.presence.enter(gone, [ROOM])
    assert await one.keys() == ["ann"]
    await eventually(lambda: "chat-2" not in one.presence.rooms)


async def test_rooms_without_presence_are_not_known(make):
    (one,) = await start(make, "n1")
    await one.join("ann", "lobby")
    assert one.presence.rooms == {}
    with pytest.raises(Unavailable):
        await one.presence.snapshot("lobby")


async def test_nothing_is_started_without_a_policy(make, imgo):
    imgo(ROOMS={"chat-*": {"history": 5}})
    (one,) = await start(make, "n1")
    assert not one.presence.is_on
    await one.join("ann")
    assert one.presence.rooms == {}


# Ends of nodes


async def test_a_dead_node_costs_one_leave_for_each_key_that_is_nowhere_else(make):
    one, two, three = await start(make, "n1", "n2", "n3")
    ann = await Watcher.join(one, "ann")
    for n in range(250):  # more than one call of `reap`
        await two.join(f"k{n}")
    await two.join("both")
    await three.join("both")
    await eventually(lambda: ann.catch_up().count == 252)
    two.kill()

    async def is_reaped() -> bool:
        await rounds(one, three)  # both reap
        await asyncio.sleep(0.1)
        return ann.catch_up().count == 2

    await eventually(is_reaped)
    assert sorted(ann.picture.left) == sorted(f"k{n}" for n in range(250))
    await eventually(lambda: ann.catch_up().members == {"ann": {}, "both": {}})
    assert await three.keys() == ["ann", "both"]
    assert (await one.presence.store.beats()).by_node.keys() == {"n1", "n3"}


async def test_a_node_that_was_condemned_and_comes_back_joins_again(make):
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    await two.join("bob")
    await eventually(lambda: ann.catch_up().joined == ["bob"])
    beats = (await one.presence.store.beats()).by_node
    assert await one.presence.store.condemn("n2", beats["n2"])
    await rounds(one)
    await eventually(lambda: ann.catch_up().left == ["bob"])
    await two.join("eve")  # its lease is lost: it writes all keys again
    await eventually(lambda: sorted(ann.catch_up().members) == ["ann", "bob", "eve"])
    assert await two.keys() == ["ann", "bob", "eve"]


async def test_a_node_that_beats_is_not_condemned(make):
    one, two = await start(make, "n1", "n2")
    before = (await one.presence.store.beats()).by_node["n2"]
    two.presence._next_beat = 0.0
    await rounds(two)
    assert not await one.presence.store.condemn("n2", before)


async def test_keys_of_a_stopped_node_leave_unless_they_come_back(make, imgo):
    imgo(PRESENCE_GRACE=0.5)
    one, two = await start(make, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    for key in ("bob", "eve"):
        await two.join(key)
    await eventually(lambda: ann.catch_up().count == 3)
    await two.presence.stop()
    await one.join("bob")

    async def is_left() -> bool:
        await rounds(one)
        return ann.catch_up().left == ["eve"]

    await eventually(is_left)
    assert ann.picture.members == {"ann": {}, "bob": {}}
    assert sorted(ann.picture.joined) == ["bob", "eve"]


# Losses of Redis


async def test_after_a_flush_the_picture_is_right_again_without_a_leave(make_redis, redis_client):
    one, two = await start(make_redis, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    await two.join("bob")
    await eventually(lambda: ann.catch_up().count == 2)
    (local,) = one.presence.rooms.values()
    # The first nodes of a new store may settle, and reset, too.
    await eventually(lambda: not (one.presence.is_settling or local.must_reset or local.reading))
    before, told = ann.picture.version, len(diffs(ann.session))
    redis_client.flushall()
    for node in (one, two):
        node.presence._next_beat = 0.0
    await rounds(one)

    async def is_settled() -> bool:
        await rounds(one, two)
        ann.catch_up()
        return not one.presence.is_settling and ann.picture.version != before

    await eventually(is_settled)
    assert ann.picture.members == {"ann": {}, "bob": {}}
    assert (ann.picture.left, diffs(ann.session)[-1]["reset"]) == ([], True)
    assert len([diff for diff in diffs(ann.session)[told:] if diff.get("reset")]) == 1
    assert await two.keys() == ["ann", "bob"]


async def test_nobody_leaves_while_a_live_node_has_not_renewed(make_redis, redis_client):
    one, two = await start(make_redis, "n1", "n2")
    ann, bob = await Watcher.join(one, "ann"), await two.join("bob")
    eve = await one.join("eve")
    await eventually(lambda: ann.catch_up().count == 3)
    listener = two.presence.store._listener
    listener._received = lambda *_: None  # it does not hear that all was lost
    redis_client.flushall()
    one.presence._next_beat = 0.0
    one.leave(eve)
    for _ in range(3):
        await rounds(one)
        found = await one.picture()
        assert found["settling"]
        assert {row["key"] for row in found["members"]} == {"ann", "bob", "eve"}
        await asyncio.sleep(0.02)
    assert ann.catch_up().left == []
    two.presence._next_beat = 0.0

    async def is_settled() -> bool:
        await rounds(two, one)
        return ann.catch_up().members == {"ann": {}, "bob": {}}

    await eventually(is_settled)
    two.leave(bob)
    await eventually(lambda: ann.catch_up().members == {"ann": {}})


async def test_a_lost_part_of_a_room_is_written_again(make_redis, redis_client):
    (one,) = await start(make_redis, "n1")
    ann = await Watcher.join(one, "ann")
    await one.join("bob")
    await eventually(lambda: ann.catch_up().count == 2)
    for name in redis_client.scan_iter("imgo:presence:members:*"):
        redis_client.delete(name)
    one.presence._next_check = 0.0
    await rounds(one)
    await eventually(
        lambda: redis_client.hlen(redis_client.keys("imgo:presence:members:*")[0]) == 2
    )


async def test_a_leave_that_redis_did_not_take_is_repeated(make_redis, redis_client, monkeypatch):
    one, two = await start(make_redis, "n1", "n2")
    ann, bob = await Watcher.join(one, "ann"), await two.join("bob")
    await eventually(lambda: ann.catch_up().count == 2)
    with monkeypatch.context() as patch:

        async def fail(edits):
            raise Unavailable("Redis cannot be reached.")

        patch.setattr(two.presence.store, "edit", fail)
        two.leave(bob)
        await eventually(lambda: not two.presence._graces)
        with pytest.raises(Unavailable):
            await two.join("eve")
        for session in list(two.holder.sessions.values()):
            two.leave(session)
        await rounds(two)
    await rounds(two)
    await eventually(lambda: ann.catch_up().left == ["bob"])
    assert await one.keys() == ["ann"]


async def test_a_change_that_did_not_arrive_is_mended_once(make_redis):
    one, two = await start(make_redis, "n1", "n2")
    ann, eve = await Watcher.join(one, "ann"), await Watcher.join(one, "eve")
    received = one.presence.store._listener._received
    one.presence.store._listener._received = lambda *_: None
    await two.join("bob")
    await asyncio.sleep(0.05)
    one.presence.store._listener._received = received
    await two.join("joe")
    await eventually(lambda: sorted(ann.catch_up().members) == ["ann", "bob", "eve", "joe"])
    await eventually(lambda: sorted(eve.catch_up().members) == ["ann", "bob", "eve", "joe"])
    assert (ann.picture.asks, eve.picture.asks) == (0, 0)


async def test_the_last_change_that_did_not_arrive_is_found_by_a_check(make_redis):
    one, two = await start(make_redis, "n1", "n2")
    ann = await Watcher.join(one, "ann")
    received = one.presence.store._listener._received
    one.presence.store._listener._received = lambda *_: None
    await two.join("bob")
    await asyncio.sleep(0.05)
    one.presence.store._listener._received = received
    one.presence._next_check = 0.0
    await rounds(one)
    await eventually(lambda: sorted(ann.catch_up().members) == ["ann", "bob"])


async def test_keys_that_redis_keeps_by_mistake_are_removed(make_redis, redis_client):
    (one,) = await start(make_redis, "n1")
    ann, bob = await Watcher.join(one, "ann"), await one.join("bob")
    await eventually(lambda: ann.catch_up().count == 2)
    local = one.presence.rooms[ROOM]
    del local.members["bob"]  # as if its leave had been lost
    one.holder.sessions.pop(bob.id)
    one.presence._next_check = 0.0
    await rounds(one)
    await eventually(lambda: ann.catch_up().left == ["bob"])


async def test_malformed_changes_are_dropped(make_redis, redis_client):
    (one,) = await start(make_redis, "n1")
    ann = await Watcher.join(one, "ann")
    for data in (b"", b"\xc1", b"\x93\x01\x02\x03", b"lost?"):
        redis_client.publish("imgo:presence:node:n1", data)
    await one.join("bob")
    await eventually(lambda: ann.catch_up().joined == ["bob"])


async def test_scripts_are_loaded_again_after_redis_dropped_them(make_redis, redis_client):
    (one,) = await start(make_redis, "n1")
    await one.join("ann")
    redis_client.script_flush()
    await one.join("bob")
    assert await one.keys() == ["ann", "bob"]


async def test_no_key_of_redis_is_left_behind(make_redis, redis_client):
    one, two = await start(make_redis, "n1", "n2")
    sessions = [await node.join(f"k{n}") for n, node in enumerate((one, two, one, two))]
    for node, session in zip((one, two, one, two), sessions, strict=True):
        node.leave(session)
    kept = {"imgo:presence:beats", "imgo:presence:generation", "imgo:presence:renewed"}
    await eventually(lambda: set(redis_client.keys("imgo:presence:*")) == kept)
    await eventually(lambda: not one.presence.rooms and not two.presence.rooms)


async def test_a_change_of_an_unknown_room_is_ignored(make):
    (one,) = await start(make, "n1")
    one.presence.changed(Change("chat-9", "e", 1, 1, True, [Joined("x", "", True)]))
    assert one.presence.rooms == {}
