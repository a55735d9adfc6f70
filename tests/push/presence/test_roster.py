"""A node's copy of a room, and the frames that clients get of it."""

import json
import random

import pytest

from push.presence.base import Change, Joined, Snapshot
from push.presence.roster import BYTES_MAX, Roster
from tests.longer_proofs import examples
from tests.push.presence.client import Picture

ANN, BOB = '{"name":"Ann"}', '{"name":"Bob"}'


def roster(members: dict[str, str] | None = None, *, limit: int = 10) -> Roster:
    """A copy at the version e.1, which its sessions know."""
    found = Roster("lobby", limit)
    rows = {"ann": ANN} if members is None else members
    found.adopt(Snapshot("e", 1, len(rows), rows))
    return found


def joins(number: int, count: int, *keys: str, info: str = BOB) -> Change:
    return Change("lobby", "e", number, count, True, [Joined(key, info, True) for key in keys])


def leaves(number: int, count: int, *keys: str) -> Change:
    return Change("lobby", "e", number, count, True, (), keys)


def body(frame: bytes | None) -> dict:
    assert frame is not None
    return json.loads(frame)


def test_snapshot_has_the_members_and_their_info():
    assert json.loads(roster({"ann": ANN, "x": ""}).snapshot()) == {
        "room": "lobby",
        "version": "e.1",
        "count": 2,
        "members": [{"key": "ann", "info": {"name": "Ann"}}, {"key": "x", "info": {}}],
    }


def test_changes_of_one_moment_are_one_diff():
    found = roster()
    for change in (joins(2, 2, "bob"), leaves(3, 1, "ann"), joins(4, 2, "eve", info="")):
        assert found.apply(change)
    assert body(found.frame()) == {
        "room": "lobby",
        "base": "e.1",
        "version": "e.4",
        "joined": [{"key": "bob", "info": {"name": "Bob"}}, {"key": "eve", "info": {}}],
        "left": ["ann"],
        "count": 2,
    }
    assert found.frame() is None
    assert not found.is_due


def test_a_key_that_joined_and_left_in_between_is_not_told():
    found = roster()
    found.apply(joins(2, 2, "bob"))
    found.apply(leaves(3, 1, "bob"))
    assert found.frame() is None
    assert not found.is_behind
    assert json.loads(found.snapshot())["version"] == "e.1"
    found.apply(joins(4, 2, "eve"))
    assert body(found.frame())["base"] == "e.1"


def test_a_change_that_comes_early_waits_for_the_one_before():
    found = roster()
    assert not found.apply(joins(3, 3, "eve"))
    assert found.frame() is None
    assert not found.is_complete
    assert found.apply(joins(2, 2, "bob"))
    assert found.is_complete
    assert body(found.frame())["count"] == 3


def test_a_change_that_comes_twice_is_applied_once():
    found = roster()
    assert found.apply(joins(2, 2, "bob"))
    assert found.frame()
    assert found.apply(joins(2, 2, "bob"))
    assert found.frame() is None


def test_changes_before_the_first_snapshot_wait_for_it():
    found = Roster("lobby", 10)
    assert not found.apply(joins(2, 2, "bob"))
    found.adopt(Snapshot("e", 1, 1, {"ann": ANN}))
    told = body(found.frame())
    assert (told["base"], told["version"]) == ("e.1", "e.2")
    assert len(json.loads(found.snapshot())["members"]) == 2


def test_a_mended_copy_tells_what_differs():
    found = roster({"ann": ANN, "old": ""})
    assert not found.apply(joins(5, 3, "eve"))
    assert found.adopt(Snapshot("e", 6, 2, {"ann": BOB, "eve": ""}))
    assert body(found.frame()) == {
        "room": "lobby",
        "base": "e.1",
        "version": "e.6",
        "joined": [{"key": "ann", "info": {"name": "Bob"}}, {"key": "eve", "info": {}}],
        "left": ["old"],
        "count": 2,
    }


def test_a_snapshot_that_is_older_than_the_copy_is_refused():
    found = roster()
    found.apply(joins(2, 2, "bob"))
    assert not found.adopt(Snapshot("e", 1, 1, {"ann": ANN}))
    assert found.version == "e.2"


def test_a_change_of_another_epoch_must_be_read():
    found = roster()
    assert not found.apply(Change("lobby", "f", 1, 1, True, [Joined("bob", BOB, True)]))
    assert not found.is_complete
    found.adopt(Snapshot("f", 1, 1, {"bob": BOB}))
    found.reset()
    assert found.is_complete
    told = body(found.frame())
    assert (told["reset"], told["version"], "base" in told) == (True, "f.1", False)


def test_above_the_limit_there_are_counts_only_and_then_a_reset():
    found = roster({"a": "", "b": ""}, limit=2)
    found.apply(joins(2, 3, "c"))
    told = body(found.frame())
    assert told == {
        "room": "lobby",
        "base": "e.1",
        "version": "e.2",
        "count": 3,
        "truncated": True,
    }
    assert json.loads(found.snapshot()) == {
        "room": "lobby",
        "version": "e.2",
        "count": 3,
        "truncated": True,
    }
    found.apply(Change("lobby", "e", 3, 2, True, (), ["a"]))
    assert found.needs_members
    found.adopt(Snapshot("e", 3, 2, {"b": "", "c": BOB}))
    assert body(found.frame(may_list=False))["truncated"]
    assert found.frame(may_list=False) is None
    assert found.is_due
    assert not found.is_behind
    told = body(found.frame())
    assert told["reset"]
    assert [row["key"] for row in told["members"]] == ["b", "c"]
    assert not found.is_due


def test_a_snapshot_without_a_list_has_the_count_that_was_told():
    found = roster({"a": "", "b": "", "c": ""}, limit=2)
    found.apply(Change("lobby", "e", 2, 4, False))
    told = json.loads(found.snapshot())
    assert (told["version"], told["count"]) == ("e.1", 3)
    assert body(found.frame())["base"] == "e.1"


def test_infos_that_are_too_large_together_are_not_listed():
    large = json.dumps({"x": "y" * 1_000})
    found = roster({"a": ""}, limit=1_000)
    number = 1
    while not found.is_short:
        number += 1
        found.apply(joins(number, number, f"k{number}", info=large))
    assert 250 < number < 270
    assert body(found.frame())["truncated"]
    for gone in range(2, 20):
        number += 1
        found.apply(leaves(number, found.count - 1, f"k{gone}"))
    frame = found.frame()
    assert body(frame)["reset"]
    assert len(frame) < BYTES_MAX + 100


@pytest.mark.parametrize("seed", range(examples(100)))
def test_clients_that_follow_the_rules_have_the_true_picture(seed):
    """Random changes, gaps, snapshots and frames: a client's picture is always that of a version
    of the room, and it never has to ask again."""
    draw = random.Random(seed)
    truth: dict[str, str] = {}
    versions: dict[str, dict[str, str]] = {"e.0": {}}
    limit = draw.choice([2, 4, 100])
    found = Roster("lobby", limit)
    found.adopt(Snapshot("e", 0, 0, {}))
    client = Picture()
    client.snapshot(found.snapshot())
    for number in range(1, 201):
        key = draw.choice("abcdef")
        before = len(truth)
        joined, left = [], []
        if key in truth and draw.random() < 0.6:
            del truth[key]
            left = [key]
        else:
            info = json.dumps({"n": number})
            joined = [Joined(key, info, key not in truth)]
            truth[key] = info
        count = len(truth)
        versions[f"e.{number}"] = dict(truth)
        is_listed = min(before, count) <= limit
        change = Change(
            "lobby", "e", number, count, is_listed, *((joined, left) if is_listed else ((), ()))
        )
        if draw.random() < 0.8:
            found.apply(change)
        if not found.is_complete and draw.random() < 0.5:
            found.adopt(Snapshot("e", number, count, dict(truth) if count <= limit else None))
        if found.needs_members:
            found.adopt(Snapshot("e", number, count, dict(truth)))
        if draw.random() < 0.3 and (frame := found.frame(may_list=draw.random() < 0.7)):
            client.diff(frame)
        if draw.random() < 0.1 and not found.is_behind:
            client.snapshot(found.snapshot())
        seen = versions[client.version]
        assert client.count == len(seen)
        if client.members is not None:
            assert client.members == {key: json.loads(info) for key, info in seen.items()}
    assert client.asks == 0
