"""Streams of events over real sockets: curl, two nodes, an API process, and a slow reader."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import httpx
import jwt
import pytest

from imgo_client import Client
from tests import PATIENCE, eventually

from .frames import AUTH, AUTH_REPLY, PUBLISH, PUBLISH_REPLY
from .harness import HOST, System, logs
from .servers import Daphne, Other, Uvicorn
from .test_slow_readers import BODY, PUSHES, RECEIVE_BUFFER
from .world import World, new_key

Enter = Callable[[System], Awaitable[World]]

PATH = "/sub/events"
JWT_SECRET = "s" * 32
SETTINGS = {
    "IMGO_ROOMS": '{"chat-*": {"history": 1000, "client_publish": "members"}}',
    "IMGO_JWT_SECRET": JWT_SECRET,
    "IMGO_REVALIDATE_INTERVAL": "1",
    "IMGO_CORS_ORIGINS": "https://page.example",
}


class Event(NamedTuple):
    """One event. `id`: the last one that came, with it or in a block before it."""

    name: str
    value: Any
    id: str


class Curl:
    """`curl -N`, as its user sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.last_id = ""
        self.session = ""
        self.rooms: dict[str, Any] = {}

    async def event(self) -> Event:
        """Return the next event of the stream."""
        name, data = "message", ""
        assert self.process.stdout is not None
        while line := (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "id":
                self.last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data = value
            elif not field:
                if data:
                    return Event(name, json.loads(data), self.last_id)
                name = "message"
        raise EOFError

    async def opened(self) -> "Curl":
        """Read the first event."""
        first = await self.event()
        assert first.name == "open", first
        self.session, self.rooms = first.value["session"], first.value["rooms"]
        return self

    async def bodies(self, count: int) -> list[Any]:
        """The bodies of the next messages."""
        return [(await self.event()).value["body"] for _ in range(count)]

    async def told(self) -> int:
        """The code of op 6, behind which the stream ends."""
        last = await self.event()
        assert (last.name, last.value["op"]) == ("imgo", 6)
        with pytest.raises(EOFError):
            await self.event()
        assert await asyncio.wait_for(self.process.wait(), PATIENCE) == 0
        return int(last.value["body"]["code"])


@asynccontextmanager
async def curl(url: str, *arguments: str) -> AsyncIterator[Curl]:
    """A running curl; ended with the context."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "curl", "-sN", "--noproxy", "*", *arguments, url, stdout=pipe
    )
    try:
        yield Curl(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def stream(
    world: World, key: str, query: str = "", *, node: int = 0, last_id: str = "", url: str = ""
) -> AsyncIterator[Curl]:
    """An open stream of a key."""
    token = await world.token(key)
    headers = [
        f"Authorization: Bearer {token}",
        *([f"Last-Event-ID: {last_id}"] if last_id else []),
    ]
    options = [word for header in headers for word in ("-H", header)]
    url = url or world.node(node).url
    async with curl(f"{url}{PATH}?{query}", *options) as client:
        yield await client.opened()


@pytest.fixture(scope="module")
def roomy(make_cluster: Callable[..., System]) -> Iterator[System]:
    """A cluster whose rooms have history."""
    with make_cluster(**SETTINGS) as system:
        yield system
    assert logs.complaints() == []


@pytest.fixture
async def world(roomy: System, enter: Enter) -> World:
    return await enter(roomy)


def new_chat() -> str:
    return f"chat-{new_key()}"


async def test_curl_gets_what_was_pending_and_what_comes(world: World) -> None:
    key, room = new_key(), new_chat()
    await world.api.push({"key": key}, "missed")
    async with stream(world, key, f"rooms={room}&rooms=lobby") as client:
        assert await client.bodies(1) == ["missed"]
        await world.api.push({"key": key}, "live")
        assert await client.bodies(1) == ["live"]
        await world.api.push({"room": room}, "for the room")
        event = await client.event()
        assert (event.value["room"], event.value["offset"]) == (room, 1)
        await world.wait_for_pending(key, 0)
        await world.wait_for_sessions(key, 1)
    await world.wait_for_sessions(key, 0)


async def test_a_token_in_the_query_is_in_no_log(world: World) -> None:
    key = new_key()
    token = await world.token(key)  # which no log may show from now on
    async with curl(f"{world.node().url}{PATH}?token={token}") as client:
        await client.opened()
    for url in (world.node().url, world.system.api_url):
        async with httpx.AsyncClient(trust_env=False) as http:
            wrong = await http.post(f"{url}{PATH}/ab-1?token={token}", content=b'{"op":2}')
            assert wrong.status_code == 404
            answer = await http.request("HEAD", f"{url}{PATH}?token={token}")
            assert answer.status_code == 405


async def test_a_client_comes_back_at_another_node(world: World) -> None:
    key, room = new_key(), new_chat()
    async with stream(world, key, f"rooms={room}") as client:
        for number in range(3):
            await world.api.push({"room": room}, number)
        assert await client.bodies(3) == [0, 1, 2]
        last_id = client.last_id
    for number in range(3, 6):
        await world.api.push({"room": room}, number)
    await world.settle()
    async with stream(world, key, f"rooms={room}", node=1, last_id=last_id) as two:
        assert two.rooms[room]["recovered"] is True
        assert await two.bodies(3) == [3, 4, 5]
        await world.api.push({"room": room}, "live")
        assert await two.bodies(1) == ["live"]


async def test_frames_may_go_to_any_process(world: World) -> None:
    key, room = new_key(), new_chat()
    await world.api.push({"room": room}, "kept")
    async with stream(world, key) as client, httpx.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {await world.token(key)}"}
        urls = [world.node(0).url, world.node(1).url, world.system.api_url]
        for number, url in enumerate(urls):
            frame = {"op": 18, "seq": number, "body": {f"{room}": {"rewind": 1}}}
            answer = await http.post(f"{url}{PATH}/{client.session}", json=frame, headers=headers)
            assert answer.status_code == 202, answer.text
            reply = await client.event()
            assert (reply.name, reply.value["seq"]) == ("imgo", number)
            assert await client.bodies(1) == ["kept"]
            leave = {"op": 20, "seq": 9, "body": room}
            await http.post(f"{url}{PATH}/{client.session}", json=leave, headers=headers)
            assert (await client.event()).value["op"] == 21
            wrong = await http.post(
                f"{url}{PATH}/{client.session}",
                json=frame,
                headers={"Authorization": "Bearer wrong"},
            )
            assert wrong.status_code == 401


async def refuses_frames(url: str, token: str) -> bool:
    """Whether a frame for this session is answered with 503."""
    async with httpx.AsyncClient(trust_env=False) as http:
        frame, headers = {"op": 2, "seq": 1}, {"Authorization": f"Bearer {token}"}
        answer = await http.post(url, json=frame, headers=headers)
        return answer.status_code == 503 and "receives nothing now" in answer.text


async def test_the_python_client_comes_back_to_all_that_it_missed(world: World) -> None:
    key, name = new_key(), new_chat()
    token = await world.token(key)
    await world.api.push({"key": key}, "waited")
    client = Client(f"{world.node(0).url}{PATH}", token, backoff=(0.05, 0.2))
    room, got = client.room(name), []
    async with client:
        running = asyncio.create_task(room.run(lambda message: got.append(message.offset)))
        async for message in client:
            assert message.body == "waited"
            message.ack()
            break
        await eventually(lambda: room.state == "joined")
        await world.api.push({"room": name}, 1)
        await eventually(lambda: got == [1])
        (session,) = (await world.api.key(key))["sessions"]
        world.node(0).kill()
        await eventually(
            partial(refuses_frames, f"{world.node(1).url}{PATH}/{session['id']}", token)
        )
        for number in (2, 3):
            await world.api.push({"room": name}, number)
        await world.node(0).start_beside()
        await eventually(lambda: got == [1, 2, 3], timeout=20)
        assert await client.request("upstream") == {}
        assert (await world.api.key(key))["sessions"][-1]["id"] != session["id"]
    await running
    await world.wait_for_pending(key, 0)


@pytest.mark.parametrize("padding", [0, 6_020])  # characters; JWTs of 150 and of 8,180
async def test_an_api_process_verifies_a_jwt(world: World, padding: int) -> None:
    claims = {"sub": new_key(), "exp": int(time.time()) + 60, "pad": "x" * padding}
    bearer = f"Bearer {jwt.encode(claims, JWT_SECRET, 'HS256')}"
    async with curl(f"{world.node().url}{PATH}", "-H", f"Authorization: {bearer}") as client:
        await client.opened()
        async with httpx.AsyncClient(trust_env=False) as http:
            for url in (world.system.api_url, world.node().url):
                answer = await http.post(
                    f"{url}{PATH}/{client.session}",
                    json={"op": 2, "seq": 4},
                    headers={"Authorization": bearer},
                )
                assert answer.status_code == 202, answer.text
                assert (await client.event()).value["seq"] == 4


async def test_an_api_process_says_where_streams_are(world: World) -> None:
    token = await world.token(new_key())
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(
            f"{world.system.api_url}{PATH}", headers={"Authorization": f"Bearer {token}"}
        )
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected")
        page = {"Origin": "https://page.example"}
        for url in (world.node().url, world.system.api_url):
            answer = await http.request("OPTIONS", f"{url}{PATH}", headers=page)
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == page["Origin"]
        answer = await http.get(f"{world.node().url}{PATH}", headers=page)
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == page["Origin"]


async def test_a_connection_is_kept_for_requests_before_a_stream(world: World) -> None:
    token = await world.token(new_key())
    reader, writer = await asyncio.open_connection(HOST, world.node().http_port)
    request = (
        f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    writer.write(request.encode())
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"event: open\n")
    writer.close()


async def test_a_revoked_token_ends_the_stream(world: World) -> None:
    key = new_key()
    async with stream(world, key) as client:
        answer = await world.api.http.delete(f"/api/v1/tokens/{key}")
        assert answer.status_code in (200, 204)
        assert await client.told() == 4403
    async with httpx.AsyncClient(trust_env=False) as http:
        token = await world.token(key)
        again = await http.get(
            f"{world.node().url}{PATH}", headers={"Authorization": f"Bearer {token}"}
        )
        assert (again.status_code, again.headers["www-authenticate"]) == (401, "Bearer")


async def test_an_expired_token_ends_the_stream(world: World) -> None:
    now = int(time.time())
    claims = {"sub": new_key(), "exp": now - 2}  # within JWT_LEEWAY, which ends the session later
    token = jwt.encode(claims, JWT_SECRET, "HS256")
    async with curl(f"{world.node().url}{PATH}", "-H", f"Authorization: Bearer {token}") as client:
        await client.opened()
        assert await client.told() == 4402


@pytest.mark.long
async def test_a_client_that_never_reads_is_closed_and_its_messages_are_kept(
    make_embedded: Callable[..., System], own_system: Callable[[System], System], enter: Enter
) -> None:
    world = await enter(own_system(make_embedded(IMGO_SESSION_BYTES=str(64 * 1024))))
    key = new_key()
    token = await world.token(key)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        slow.connect((HOST, world.node().http_port))
        slow.sendall(f"GET {PATH}?ack=1&token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await world.wait_for_sessions(key, 1)
        for _ in range(PUSHES):
            await world.api.push({"key": key}, BODY)
        await world.wait_for_sessions(key, 0)
    assert await world.api.pending(key) == PUSHES
    async with stream(world, key, "ack=1") as back:
        assert len(await back.bodies(PUSHES)) == PUSHES


async def test_a_node_that_stops_tells_its_streams(
    make_embedded: Callable[..., System], own_system: Callable[[System], System], enter: Enter
) -> None:
    system = own_system(make_embedded(IMGO_DRAIN_SECONDS="0.2"))
    world = await enter(system)
    async with stream(world, new_key()) as client:
        await asyncio.to_thread(system.nodes[0].stop)
        assert await client.told() == 4000


# Publishing, and another token

DOORS = ("tcp", "text", "binary")


async def test_what_a_client_publishes_reaches_the_room_over_each_transport(world: World) -> None:
    room, writer = new_chat(), new_key()
    plain = await world.session(new_key(), rooms=[room])  # it has not asked for names
    clients = [
        await world.session(new_key(), door, number % 2, rooms={room: {}})
        for number, door in enumerate(DOORS)
    ]
    async with stream(world, writer, f"rooms={room}", node=1) as reader:
        bearer = {"Authorization": f"Bearer {await world.token(writer)}"}
        path = f"{PATH}/{reader.session}"
        body = {"room": room, "body": {"n": 1}, "id": "first"}
        for seq, url in enumerate((world.node(0).url, world.system.api_url), 1):  # twice
            async with httpx.AsyncClient(trust_env=False) as http:
                frame = {"op": PUBLISH, "seq": seq, "body": body}
                assert (await http.post(url + path, json=frame, headers=bearer)).status_code == 202
        events = [(await reader.event()).value for _ in range(3)]
        ids = {event["body"]["id"] for event in events if event["op"] == PUBLISH_REPLY}
        (message,) = [event for event in events if event["op"] == 5]
        assert ids == {message["id"]}
        assert (message["from"], message["offset"], message["body"]) == (writer, 1, {"n": 1})
        for client in clients:
            got = await client.receive()
            assert (got.sender, got.room, got.offset, got.value) == (writer, room, 1, {"n": 1})
        quiet = {"room": room, "body": "typing", "store": "never", "echo": False}
        for client in clients:
            reply = await client.ask(PUBLISH, quiet)
            assert (reply.op, reply.value["room"]) == (PUBLISH_REPLY, room)
            for other in clients:
                if other is not client:
                    got = await other.receive()
                    assert (str(got.id), got.offset, got.value) == (reply.value["id"], 0, "typing")
        first = await plain.receive()
        assert (first.value, first.ver, first.id, first.room) == ({"n": 1}, 1, 0, "")
        page = await world.api.get(f"/api/v1/rooms/{room}/messages")
        assert [(kept["from"], kept["body"]) for kept in page["messages"]] == [(writer, {"n": 1})]
        record = await world.api.get(f"/api/v1/pushes/{message['id']}")
        assert (record["by"], record["from"]) == ("client", writer)


async def test_another_token_keeps_a_session_over_each_transport(world: World) -> None:
    def token(seconds: float, key: str) -> str:
        claims = {"sub": key, "exp": time.time() + seconds - 5}  # JWT_LEEWAY is 5 s
        return jwt.encode(claims, JWT_SECRET, "HS256")

    key = new_key()
    clients = []
    for door in DOORS:
        client = await world.connect(door)
        await client.auth({"token": token(5, key), "ack": True, "renew": True})
        clients.append(client)
    headers = {"Authorization": f"Bearer {token(6, key)}"}
    async with curl(
        f"{world.node().url}{PATH}", "-H", f"Authorization: {headers['Authorization']}"
    ) as reader:
        await reader.opened()
        long = token(300, key)
        for client in clients:
            other = await client.ask(AUTH, {"token": token(300, new_key())})
            assert (other.op, other.value["error"]["code"]) == (AUTH_REPLY, "forbidden")
            reply = await client.ask(AUTH, {"token": long})
            assert reply.op == AUTH_REPLY
            assert 200 < reply.value["expires_in"] <= 300
        async with httpx.AsyncClient(trust_env=False) as http:
            frame = {"op": AUTH, "seq": 5, "body": {"token": long}}
            url = f"{world.system.api_url}{PATH}/{reader.session}"
            assert (await http.post(url, json=frame, headers=headers)).status_code == 202
        assert (await reader.event()).value["body"]["expires_in"] > 200
        witness = await world.connect("tcp")
        await witness.auth({"token": token(6, new_key())})
        assert (await witness.ended()).code == 4402  # by now, the first tokens have expired too
        await world.api.push({"key": key}, "still here")
        assert await reader.bodies(1) == ["still here"]
        for client in clients:
            assert (await client.receive()).value == "still here"


# Under other servers


@pytest.mark.parametrize("server", [Uvicorn, Daphne])
async def test_streams_stay_with_another_server(
    server: Any, homes: Iterator[Any], sqlite_template: Any, enter: Enter
) -> None:
    with Other(next(homes), sqlite_template, server) as system:
        world = await enter(system)
        key = new_key()
        token = await world.token(key)
        options = ("-k", "-H", f"Authorization: Bearer {token}")
        async with curl(f"{world.node().url}{PATH}?rooms=lobby", *options) as client:
            await client.opened()
            await world.api.push({"key": key}, "live")
            assert await client.bodies(1) == ["live"]
            answer = await world.api.http.post(
                f"{PATH}/{client.session}",
                json={"op": 2, "seq": 3},
                headers={"Authorization": f"Bearer {token}"},
            )
            assert answer.status_code == 202
            assert (await client.event()).value["op"] == 3
        await world.wait_for_sessions(key, 0)
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:
            assert (await http.get(f"{world.node().url}{PATH}")).status_code == 401
    assert logs.complaints() == []
