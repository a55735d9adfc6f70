"""Processes that end: in order, by a kill, by a port that is taken; and what comes back after."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable

import pytest
import redis

from tests import eventually
from tests.fork_server import PLAIN_START

from .clients import TRANSPORTS
from .harness import DOWN_TIMEOUT, HOST, Cluster, Database, Embedded, System, names_setting
from .world import World, new_key

GOING_AWAY = 4000
LEASE = 4  # seconds; 30 is the default

Enter = Callable[[System], Awaitable[World]]
Start = Callable[[System], System]


@pytest.mark.parametrize(
    ("kind", "number"),
    [("embedded", signal.SIGTERM), ("embedded", signal.SIGINT), ("cluster", signal.SIGTERM)],
)
@pytest.mark.long(but=["embedded-2"])
async def test_a_node_that_is_stopped_sends_its_sessions_elsewhere(
    request: pytest.FixtureRequest,
    own_system: Start,
    enter: Enter,
    kind: str,
    number: signal.Signals,
) -> None:
    make = request.getfixturevalue(f"make_{kind}")
    world = await enter(own_system(make()))
    node = world.node()
    clients = [await world.session(new_key(), transport) for transport in TRANSPORTS]
    waiting = [await world.connect(transport) for transport in TRANSPORTS]
    start = time.monotonic()
    node.signal(number)
    for client in clients:
        ending = await client.ended()
        assert (ending.code, ending.reconnect, ending.frames) == (GOING_AWAY, True, [])
        assert ending.reason
    for client in waiting:
        client.abort()
    await eventually(node.has_ended)
    assert node.status == 0
    assert time.monotonic() - start < DOWN_TIMEOUT


@pytest.mark.long
async def test_a_node_stops_although_clients_do_not_answer(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_embedded()))
    node = world.node()
    for transport in TRANSPORTS:  # none of these reads or answers a close
        await world.session(new_key(), transport)
        await world.connect(transport)
    with socket.create_connection((HOST, node.http_port)) as half:
        half.sendall(b"GET /sub HTTP/1.1\r\n")
        node.signal(signal.SIGTERM)
        await eventually(node.has_ended)
    assert node.status == 0


@pytest.mark.parametrize("port", ["HTTP_PORT", "WS_PORT", "TCP_PORT"])
@pytest.mark.long(but=["TCP_PORT"])
def test_a_port_in_use_ends_the_node_and_names_the_setting(
    make_embedded: Callable[..., Embedded], port: str
) -> None:
    node = make_embedded().nodes[0]
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        node.environment[f"IMGO_{port}"] = str(taken.getsockname()[1])
        node.launch()
        status = node.wait()
    assert status == 1
    text = node.log.read_text()
    assert names_setting(text, f"IMGO_{port}"), text
    assert "in use" in text
    assert "Listening" not in node.out.read_text()


def test_a_node_without_its_tables_says_what_to_do(
    make_embedded: Callable[..., Embedded],
) -> None:
    database = Database(os.environ["DATABASE_URL"])
    try:
        system = make_embedded(DATABASE_URL=database.url, DJANGO_SECRET_KEY="k" * 50)
        system.nodes[0].launch()
        assert system.nodes[0].wait() == 1
        assert "run 'manage.py migrate' first" in system.nodes[0].log.read_text()
    finally:
        database.drop()


def test_embedded_node_makes_the_tables_of_its_own_database(
    make_embedded: Callable[..., Embedded],
) -> None:
    system = make_embedded()
    (system.home / "data" / "imgo.sqlite3").unlink()
    with system:
        assert system.nodes[0].is_ready()


async def test_a_restart_keeps_what_is_pending(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_embedded()))
    node = world.node()
    key = new_key()
    reader = await world.session(key, "text", ack=True)
    ids = [await world.api.push({"key": key}, n) for n in range(5)]
    received = [await reader.receive() for _ in range(5)]
    await reader.ack(*received[:2])
    await reader.heartbeat()
    node.signal(signal.SIGTERM)
    assert (await reader.ended()).code == GOING_AWAY
    await eventually(node.has_ended)
    node.start()
    assert await world.api.pending(key) == 3
    back = await world.session(key, "binary", ack=True)
    assert [(await back.receive()).id for _ in range(3)] == ids[2:]
    await back.ack(*received)
    await world.wait_for_pending(key, 0)


@pytest.mark.long
async def test_a_killed_embedded_node_has_lost_nothing_that_it_accepted(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_embedded()))
    node = world.node()
    key = new_key()
    await world.token(key)
    ids = [await world.api.push({"key": key}, n) for n in range(20)]
    node.kill()
    node.start()
    client = await world.session(key, ack=True)
    assert [(await client.receive()).id for _ in range(20)] == ids


@pytest.mark.long
async def test_a_killed_node_vanishes_and_its_sessions_are_served_by_another(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_cluster(IMGO_NODE_LEASE=str(LEASE))))
    key, room = new_key(), "a room"
    dying, living = world.system.nodes
    client = await world.session(key, "text", node=0, ack=True, rooms=[room])
    witness = await world.session(new_key(), node=1, rooms=[room])
    ids = [await world.api.push({"key": key}, n) for n in range(3)]
    seen = [await client.receive() for _ in range(3)]
    await client.ack(seen[0])
    await world.wait_for_pending(key, 2)
    dying.kill()
    killed = time.monotonic()
    ids.append(await world.api.push({"key": key}, b'"pushed to a dead node"'))
    await world.wait_for_sessions(key, 0, LEASE + 6)
    assert time.monotonic() - killed < LEASE + 6
    (node,) = (await world.api.get("/api/v1/nodes"))["results"]
    assert (node["name"].endswith(str(living.http_port)), node["sessions"]) == (True, 1)
    assert (await world.api.rooms())[room] == 1
    back = await world.session(key, "text", node=1, ack=True)
    assert [(await back.receive()).id for _ in range(3)] == ids[1:]
    await world.api.push({"room": room}, b'"the room lives on"')
    assert await witness.receive_bodies(1) == [b'"the room lives on"']

    dying.start()
    again = await world.session(new_key(), "tcp", node=0, rooms=[room])
    await world.api.push({"room": room}, b'"both nodes"')
    for client in (witness, again):
        assert await client.receive_bodies(1) == [b'"both nodes"']


@pytest.mark.long
async def test_a_key_gets_its_messages_while_nodes_restart_one_after_the_other(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_cluster()))
    key = new_key()
    client = await world.session(key, "tcp", node=1)
    bodies = []
    for number, node in enumerate(world.system.nodes):
        bodies.append(b'"before %d"' % number)
        await world.api.push({"key": key}, bodies[-1])
        assert await client.receive_bodies(1) == bodies[-1:]
        await world.wait_for_pending(key, 0)
        node.signal(signal.SIGTERM)
        if number == 1:
            assert (await client.ended()).code == GOING_AWAY
        await eventually(node.has_ended)
        await world.api.push({"key": key}, b'"meanwhile"')
        if number == 1:
            client = await world.session(key, "text", node=0)
        assert await client.receive_bodies(1) == [b'"meanwhile"']
        node.start()
        assert len((await world.api.get("/api/v1/nodes"))["results"]) == 2
    await world.wait_for_pending(key, 0)


@pytest.mark.long
async def test_what_is_accepted_while_a_process_is_away_arrives(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter
) -> None:
    cluster = make_cluster()
    world = await enter(own_system(cluster))
    key = new_key()
    client = await world.session(key, "text", node=1)
    push = b'{"to":{"key":"%b"},"body":"meanwhile"}' % key.encode()
    for process in (cluster.worker, cluster.gunicorn):
        process.signal(signal.SIGTERM)
        await eventually(process.has_ended)
        assert process.status == 0
        answer = await world.api.http.post(f"{world.node().url}/api/v1/pushes", content=push)
        assert answer.status_code == 202
        process.start()
        assert await client.receive_bodies(1) == [b'"meanwhile"']
        await world.wait_for_pending(key, 0)


@pytest.mark.long
async def test_a_worker_that_is_killed_loses_nothing_that_was_accepted(
    make_cluster: Callable[..., Cluster], own_system: Start, enter: Enter
) -> None:
    """Its tasks may come back late: a session that opens gets what is pending at once."""
    cluster = make_cluster()
    world = await enter(own_system(cluster))
    key = new_key()
    await world.token(key)
    with cluster.worker.paused():
        ids = [await world.api.push({"key": key}, n) for n in range(10)]
        cluster.worker.kill()
    client = await world.session(key, "binary", ack=True)
    assert [(await client.receive()).id for _ in range(10)] == ids
    cluster.worker.start()
    ids.append(await world.api.push({"key": key}, b'"the end"'))
    assert (await client.receive()).id == ids[-1]


async def test_nothing_is_left_of_a_stopped_node(
    make_embedded: Callable[..., Embedded], own_system: Start, enter: Enter
) -> None:
    world = await enter(own_system(make_embedded()))
    node = world.node()
    await world.session(new_key())
    node.stop()
    with pytest.raises(ProcessLookupError):
        os.killpg(node.pid, 0)
    for port in (node.http_port, node.ws_port, node.tcp_port):
        with socket.socket() as probe:
            assert probe.connect_ex((HOST, port)) != 0


def test_the_greeting_says_where_it_listens_and_how_to_push(
    make_embedded: Callable[..., Embedded], own_system: Start
) -> None:
    system = own_system(make_embedded())
    node = system.nodes[0]
    text = node.out.read_text()
    for port in (node.http_port, node.ws_port, node.tcp_port):
        assert str(port) in text
    (curl,) = [line for line in text.splitlines() if line.strip().startswith("curl")]
    done = subprocess.run(
        ["sh", "-c", f"{curl.strip()} --silent --fail --noproxy '*'"],
        env={**os.environ, "IMGO_API_KEY": system.api_key},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert '"id"' in done.stdout, done


@pytest.mark.long
async def test_processes_that_end_in_order_are_off_the_list_at_once(
    own_system: Start, enter: Enter, make_cluster: Callable[..., Cluster]
) -> None:
    # One process of each kind starts, serves and ends as users start it, not by a fork.
    system = make_cluster(**{PLAIN_START: "1"})
    world = await enter(own_system(system))
    await world.api.push({"key": new_key()}, b"1")  # an API process is one with its first request
    with redis.Redis.from_url(system.redis.url) as client:
        left = len(system.processes)
        await eventually(lambda: client.scard("imgo:registry:processes") == left)
        for process in (system.gunicorn, system.worker, system.nodes[1]):
            process.stop()
            left -= 1
            assert client.scard("imgo:registry:processes") == left
