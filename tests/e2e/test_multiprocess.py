"""`manage.py imgo --processes 2`: nodes that share their ports, and what operators do with them."""

import asyncio
import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import NO_TLS, eventually, in_thread

from .clients import TRANSPORTS, Closed
from .harness import HOST, Cluster, Node, Process, System, manage_many, names_setting
from .world import World, new_key

GOING_AWAY = 4000
KICKED = 4504
SESSIONS = 20  # all on one of two nodes by chance: once in half a million

Enter = Callable[[System], Awaitable[World]]
Start = Callable[[System], System]


def child_named(parent: Process, name: str) -> int:
    """The process id of a node that this process runs."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    variable = f"IMGO_NODE_NAME={name}".encode()
    (process_id,) = [
        int(pid)
        for pid in children
        if variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    ]
    return process_id


async def nodes(world: World) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await world.api.get("/api/v1/nodes"))["results"]
    return rows


async def open_sessions(world: World) -> dict[str, Any]:
    """By key; over the same three ports."""
    keys = [new_key() for _ in range(SESSIONS)]
    opened = await asyncio.gather(
        *(
            world.session(key, TRANSPORTS[n % len(TRANSPORTS)], rooms=["everyone"])
            for n, key in enumerate(keys)
        )
    )
    return dict(zip(keys, opened, strict=True))


async def node_of(world: World, key: str) -> str:
    (session,) = (await world.api.key(key))["sessions"]
    return str(session["node"])


async def figures(world: World) -> dict[str, float]:
    """What whoever gets a new connection says of all."""
    url, header = f"{world.node().url}/metrics", f"Api-Key {world.system.api_key}"
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as once:
        answer = await once.get(url, headers={"Authorization": header})
    lines = re.findall(r"^(imgo_sessions\w*)\{.*\} (\S+)$", answer.text, re.MULTILINE)
    sums: Counter[str] = Counter()
    for name, value in lines:
        sums[name] += float(value)
    return sums


async def either_answers_for_both(world: World, opened: int, there: int) -> None:
    async def all_are_there() -> bool:
        return (await figures(world))["imgo_sessions"] == there

    for _ in range(12):  # each time one of them
        assert (await figures(world))["imgo_sessions_opened_total"] == opened
        await eventually(all_are_there, 30)  # of the other it is known after a while


@pytest.mark.long
async def test_processes_share_ports_are_kept_running_drained_and_stopped(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter
) -> None:
    cluster = make_cluster(
        nodes=1, IMGO_NODE_NAME="web", IMGO_DRAIN_SECONDS="1", IMGO_NODE_LEASE="5"
    )
    parent = cluster.nodes[0]
    parent.add_arguments("--processes", "2")
    world = await enter(own_system(cluster))

    async def both_are_there() -> dict[str, Any] | None:
        rows = await nodes(world)
        return {row["name"]: row for row in rows} if len(rows) == 2 else None

    before = await eventually(both_are_there, 30)
    assert sorted(before) == ["web#0", "web#1"]
    clients = await open_sessions(world)
    places = {key: await node_of(world, key) for key in clients}
    assert set(places.values()) == {row["id"] for row in before.values()}
    await world.api.push({"room": "everyone"}, b'"to both"')
    for client in clients.values():
        assert await client.receive_bodies(1) == [b'"to both"']

    await either_answers_for_both(world, SESSIONS, SESSIONS)

    # A node that dies is started again, with its number; the other's sessions do not notice.
    os.kill(child_named(parent, "web#0"), signal.SIGKILL)
    dead, living = before["web#0"]["id"], before["web#1"]["id"]
    for key, client in list(clients.items()):
        if places[key] == dead:
            client.abort()
            del clients[key]

    async def is_back() -> dict[str, Any] | None:
        rows = await both_are_there()
        return rows if rows and rows.get("web#0", {}).get("id", dead) != dead else None

    after = await eventually(is_back, 30)
    assert after["web#0"]["number"] == before["web#0"]["number"]
    assert after["web#1"]["id"] == living
    # What it had counted still counts, its sessions do not.
    await either_answers_for_both(world, SESSIONS, len(clients))
    newer = await open_sessions(world)
    places_newer = {key: await node_of(world, key) for key in newer}
    assert set(places_newer.values()) == {row["id"] for row in after.values()}
    await world.api.push({"keys": [*clients, *newer]}, b'"still"')
    for client in (*clients.values(), *newer.values()):
        assert await client.receive_bodies(1) == [b'"still"']

    # Kicked is one session alone; drained, a node closes its own and leaves the new to the other.
    victim = next(iter(clients))
    (session,) = (await world.api.key(victim))["sessions"]
    kicked, gone, drained, unknown = await in_thread(
        manage_many,
        parent.environment,
        [
            ["kick", "--session", session["id"]],
            ["kick", "--session", f"{dead}-1"],
            ["drain", "web#1", "--wait", "--json"],
            ["drain", "web#7"],
        ],
    )
    assert kicked == (0, f"The node of session {session['id']} was told to close it.", "")
    assert (await clients.pop(victim).ended()).code == KICKED
    assert (gone[0], "no live node" in gone[2]) == (1, True)
    assert (unknown[0], "no live node 'web#7'" in unknown[2]) == (1, True)
    there = [key for key in newer if places_newer[key] == living]
    summary = json.loads(drained[1])
    assert summary["node"] == "web#1"
    assert summary["sessions"] in {len(clients) + len(there), len(clients) + len(there) + 1}
    for client in (*clients.values(), *(newer[key] for key in there)):
        assert (await client.ended()).code == GOING_AWAY
    newest = await open_sessions(world)
    assert {await node_of(world, key) for key in newest} == {after["web#0"]["id"]}
    await eventually(partial(draining, world, ["web#1"]))

    newest |= await undo_drain(world, parent, living)
    newest = await drain_all(world, parent, newest)

    parent.signal(signal.SIGTERM)
    for client in newest.values():
        assert (await client.ended()).code == GOING_AWAY
    await eventually(parent.has_ended)
    assert parent.status == 0
    for port in (parent.http_port, parent.ws_port, parent.tcp_port):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0


async def undo_drain(world: World, parent: Node, node_id: str) -> dict[str, Any]:
    """Have web#1 take sessions again, at the ports that both share; those that are opened."""
    undo = ["drain", "web#1", "--undo"]
    (undone,) = await in_thread(manage_many, parent.environment, [undo])
    assert undone == (0, "web#1 takes sessions again.", "")
    await eventually(partial(draining, world, []))
    opened: dict[str, Any] = {}

    async def is_back() -> bool:
        opened.update(await open_sessions(world))
        return node_id in {await node_of(world, key) for key in opened}

    await eventually(is_back)
    return opened


async def drain_all(world: World, parent: Node, clients: dict[str, Any]) -> dict[str, Any]:
    """Drain both: one goes on to answer probes; then have web#1 alone take sessions again."""
    orders = [["drain", name, "--wait"] for name in ("web#0", "web#1")]
    await in_thread(manage_many, parent.environment, orders)
    for client in clients.values():
        assert (await client.ended()).code == GOING_AWAY
    assert await probe(parent, "/healthz") == {200}
    assert await probe(parent, "/readyz") == {503}
    client = await world.connect()
    ending = await client.refused(await world.token(new_key()))
    assert ending is not None
    assert "takes no sessions for now" in ending.reason
    await in_thread(manage_many, parent.environment, [["drain", "web#1", "--undo"]])

    async def takes_all() -> dict[str, Any] | None:
        try:
            return await open_sessions(world)
        except (Closed, AssertionError, OSError):  # web#0 looks once a second if it is needed
            return None

    opened = await eventually(takes_all)
    assert opened is not None
    return opened


async def probe(node: Node, path: str) -> set[int]:
    """The answers to some requests, each over a connection of its own."""
    statuses = set()
    for _ in range(12):
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as once:
            statuses.add((await once.get(f"{node.url}{path}")).status_code)
    return statuses


async def draining(world: World, names: list[str]) -> bool:
    return [row["name"] for row in await nodes(world) if row["draining"]] == names


@pytest.mark.long
async def test_nodes_of_a_killed_supervisor_stop_in_order(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter
) -> None:
    cluster = make_cluster(nodes=1, IMGO_DRAIN_SECONDS="1")
    parent = cluster.nodes[0]
    parent.add_arguments("--processes", "2")
    world = await enter(own_system(cluster))
    clients = await open_sessions(world)
    parent.kill()  # its nodes are in process groups of their own
    for client in clients.values():
        assert (await client.ended()).code == GOING_AWAY
    await eventually(partial(nobody_listens, parent), 30)


async def nobody_listens(parent: Node) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, parent.http_port)) != 0


def test_a_port_in_use_ends_them_before_they_begin(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(nodes=1)
    parent = cluster.nodes[0]
    parent.add_arguments("--processes", "2")
    try:
        with socket.socket() as taken:
            # As another installation of ours has it: shared.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind((HOST, parent.ws_port))
            taken.listen()
            parent.launch()
            assert parent.wait() == 1
        text = parent.log.read_text()
        assert names_setting(text, "IMGO_WS_PORT"), text
        assert "in use" in text
    finally:
        cluster.clean_up()
