"""What became of a push: over the API and from the commands, in each installation."""

import json
from typing import Any

import pytest

from tests import eventually

from .frames import HEARTBEAT
from .harness import manage, try_manage
from .world import World, new_key, new_room


async def record(world: World, number: int, **query: Any) -> Any:
    """The record of a push."""
    return await world.api.get(f"/api/v1/pushes/{number}", **query)


async def wait_for(world: World, number: int, **totals: int) -> Any:
    """The record, as soon as so many keys are in those states."""
    push_record: dict[str, Any] = {}

    async def is_so() -> bool:
        push_record.update(await record(world, number))
        return all(push_record["totals"][state] == count for state, count in totals.items())

    await eventually(is_so)
    return push_record


async def sent_to(world: World, number: int, key: str) -> Any:
    """The record, as soon as it says that a session of the key was sent the message."""
    push_record: dict[str, Any] = {}

    async def is_so() -> bool:
        push_record.update(await record(world, number))
        return any(row["sent"] for row in push_record["results"] if row["key"] == key)

    await eventually(is_so)
    return push_record


async def test_a_record_says_of_each_key_what_became_of_it(world: World) -> None:
    reading, acking, away = new_key(), new_key(), new_key()
    plain = await world.session(reading, "tcp")
    client = await world.session(acking, "text", node=1, ack=True)
    number = await world.api.push({"keys": [reading, acking, away]}, b'"for three"')
    message = await client.receive()
    await plain.receive()
    await wait_for(world, number, acknowledged=1, pending=2)
    push_record = await sent_to(world, number, acking)  # each node says it by itself
    assert (push_record["id"], push_record["target"], push_record["stored"]) == (
        str(number),
        "keys",
        True,
    )
    by_key = {row["key"]: row for row in push_record["results"]}
    assert [row["key"] for row in push_record["results"]] == [reading, acking, away]
    assert (by_key[reading]["state"], by_key[reading]["how"]) == ("acknowledged", "kernel")
    assert by_key[acking]["state"] == "pending"
    assert len(by_key[acking]["sent"]) == 1
    assert (by_key[away]["state"], by_key[away]["sent"]) == ("pending", [])

    await client.ack(message)
    push_record = await wait_for(world, number, acknowledged=2, pending=1)
    by_key = {row["key"]: row for row in push_record["results"]}
    (session,) = (await world.api.key(acking))["sessions"]
    assert by_key[acking]["how"] == "client"
    assert by_key[acking]["session"] == session["id"] == by_key[acking]["sent"][0]["session"]
    assert push_record["created_at"] <= by_key[acking]["sent"][0]["at"] <= by_key[acking]["at"]

    async def is_done() -> bool:  # the worker says so after it has sent
        return bool((await record(world, number))["fan_out"] == {"state": "done"})

    await eventually(is_done)


async def test_keys_come_a_page_at_a_time(world: World) -> None:
    keys = [new_key() for _ in range(5)]
    number = await world.api.push({"keys": keys}, b'"for five"')
    push_record = await record(world, number, limit=2, offset=3)
    assert (push_record["count"], [row["key"] for row in push_record["results"]]) == (5, keys[3:])


async def test_every_device_that_was_sent_it_is_named(world: World) -> None:
    key = new_key()
    devices = [await world.session(key, name, node) for node, name in enumerate(("tcp", "binary"))]
    number = await world.api.push({"key": key}, b'"for both devices"')
    for device in devices:
        await device.receive()
    sessions = {row["id"] for row in (await world.api.key(key))["sessions"]}

    async def both() -> bool:
        (row,) = (await record(world, number))["results"]
        return {sent["session"] for sent in row["sent"]} == sessions

    await eventually(both)


@pytest.mark.long(but=["embedded"])
async def test_what_expired_says_so(world: World) -> None:
    number = await world.api.push({"key": new_key()}, b'"too late"', ttl=1)
    push_record = await wait_for(world, number, expired=1, pending=0)
    assert push_record["results"][0]["state"] == "expired"


async def test_live_pushes_have_a_record_without_deliveries(world: World) -> None:
    room = new_room()
    number = await world.api.push({"room": room}, b'"live"')
    push_record = await record(world, number)
    assert (push_record["target"], push_record["room"], push_record["stored"]) == (
        "room",
        room,
        False,
    )
    number = await world.api.push({"key": new_key()}, b'"only now"', store="never")
    assert (await record(world, number))["results"][0]["state"] == "live"


async def test_an_unknown_id_is_a_clear_answer(world: World) -> None:
    for number, status in (("999999999", 404), ("0", 400), ("x", 400), (str(2**63), 400)):
        answer = await world.api.http.get(f"/api/v1/pushes/{number}")
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]


def explain(world: World, *arguments: str) -> str:
    # A node's: in embedded mode the command asks the server on that port.
    return manage(world.system.nodes[0].environment, "explain", *arguments)


@pytest.mark.long(but=["embedded"])
async def test_explain_says_why_in_plain_words(world: World) -> None:
    key, other = new_key(), new_key()
    await world.token(key)
    waiting = await world.api.push({"key": key}, b'"waiting"')
    await world.settle()
    text = explain(world, key, str(waiting))
    assert "It is pending" in text
    assert "No session of the key is connected now" in text
    assert f"It was not pushed to {other!r}." in explain(world, other, str(waiting))
    unknown = try_manage(world.system.environment, "explain", key, "999999999")
    assert unknown.stdout.startswith("There is no record of message 999999999")
    assert unknown.returncode == 1

    client = await world.session(key, "text", ack=True)
    message = await client.receive()
    assert (await client.ask(HEARTBEAT)).op == HEARTBEAT + 1
    await sent_to(world, waiting, key)
    await wait_for(world, waiting, pending=1)
    text = explain(world, key, str(waiting))
    assert "It was sent to session" in text
    assert "was sent it and has not acknowledged it" in text
    await client.ack(message)
    await wait_for(world, waiting, acknowledged=1)
    assert "acknowledged it at" in explain(world, key, str(waiting))

    data = json.loads(explain(world, key, "--json"))
    assert [row["id"] for row in data["messages"]] == [str(waiting)]
    assert data["messages"][0]["state"] == "acknowledged"
    assert "has 1 session and 0 pending messages" in data["explanation"][0]


@pytest.mark.long(but=["embedded"])
async def test_mistakes_of_who_asks_are_answered_with_what_to_do(world: World) -> None:
    for arguments, message in (
        (("explain", "u1", "x"), "A push's id must be a whole number"),
        (("explain", ""), "key"),
        (("explain", "u1", "--last", "0"), "--last must be"),
        (("conserve", "--latest", "-1"), "--latest must be 0 or more"),
    ):
        done = try_manage(world.system.environment, *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


async def test_everything_is_accounted_for(world: World) -> None:
    key = new_key()
    client = await world.session(key, "tcp")
    for n in range(3):
        await world.api.push({"keys": [key, new_key()]}, n)
    await client.receive_bodies(3)
    await world.wait_for_pending(key, 0)
    done = try_manage(world.system.environment, "conserve")
    assert (done.returncode, "Everything is accounted for." in done.stdout) == (0, True), done
    balance = json.loads(try_manage(world.system.environment, "conserve", "--json").stdout)
    settled = sum(balance["settled"].values())
    assert balance["accepted"] == balance["pending"] + settled
    assert (balance["missing"], balance["unbalanced"]) == (0, [])
    assert balance["settled"]["received"] >= 3
