"""TLS that ends in a plain Daphne: the same application under a server that knows nothing of it."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from imgo_client import AsyncPublisher, Client
from tests import PATIENCE, eventually

from .frames import AUTH, HEARTBEAT
from .harness import HOST, System, logs, manage
from .js_page import LIKE_NODE_20, Page
from .servers import Daphne, Other, write_certificate
from .world import new_key


@pytest.fixture(scope="module")
def system(homes: Iterator[Path], sqlite_template: Path) -> Iterator[System]:
    with Other(next(homes), sqlite_template, Daphne) as system:
        yield system
    assert logs.complaints() == []


@pytest.fixture
def daphne(system: System) -> Daphne:
    (node,) = system.nodes
    assert isinstance(node, Daphne)
    return node


async def test_a_session_over_tls_gets_what_is_pushed(system: System, daphne: Daphne) -> None:
    key = new_key()
    token = manage(daphne.environment, "token", key)
    logs.forbid(token)
    body = {"to": {"key": key}, "body": "x" * 50_000}
    base = f"localhost:{daphne.http_port}"
    async with httpx.AsyncClient(verify=daphne.tls, trust_env=False) as http:
        headers = {"Authorization": f"Api-Key {system.api_key}"}
        pushes = f"https://{base}/api/v1/pushes"
        missed = await http.post(pushes, json={**body, "body": "missed"}, headers=headers)
        async with websockets.connect(f"wss://{base}/sub", ssl=daphne.tls, proxy=None) as client:
            await client.send(json.dumps({"ver": 1, "op": AUTH, "seq": 1, "body": token}))
            received = [json.loads(await client.recv())[0] for _ in range(2)]
            assert [frame["body"] for frame in received] == [{}, "missed"]
            answer = await http.post(pushes, json=body, headers=headers)
            assert (missed.status_code, answer.status_code) == (202, 202)
            assert json.loads(await client.recv())[0]["body"] == body["body"]
            await client.send(json.dumps({"ver": 1, "op": HEARTBEAT, "seq": 2}))
            assert json.loads(await client.recv())[0]["seq"] == 2


async def test_the_javascript_client_on_node_20_gets_what_is_pushed(
    system: System, daphne: Daphne, tmp_path: Path
) -> None:
    key = new_key()
    token = manage(daphne.environment, "token", key)
    logs.forbid(token)
    base = f"localhost:{daphne.http_port}"
    page = Page(f"https://{base}/sub", tmp_path / "tab", LIKE_NODE_20, token=token)
    page.environment["NODE_EXTRA_CA_CERTS"] = str(daphne.certificate)
    async with page, httpx.AsyncClient(verify=daphne.tls, trust_env=False) as http:
        await page.wait_for("open")
        headers = {"Authorization": f"Api-Key {system.api_key}"}
        push = {"to": {"key": key}, "body": "x" * 50_000}
        await http.post(f"https://{base}/api/v1/pushes", json=push, headers=headers)
        await eventually(lambda: page.shown == [push["body"]])


async def test_the_javascript_client_on_node_20_trusts_no_certificate_by_chance(
    daphne: Daphne, tmp_path: Path
) -> None:
    url = f"wss://localhost:{daphne.http_port}/sub"
    async with Page(url, tmp_path / "tab", LIKE_NODE_20, token="wrong") as page:
        await eventually(page.closes)
        assert page.closes()[0] == [1006, True]


async def test_the_python_client_and_publisher_over_tls(system: System, daphne: Daphne) -> None:
    key = new_key()
    token = manage(daphne.environment, "token", key)
    logs.forbid(token)
    base = f"localhost:{daphne.http_port}"
    options = {"verify": daphne.tls, "trust_env": False}
    async with AsyncPublisher(f"https://{base}", system.api_key, **options) as publisher:
        pushed = await publisher.push("over TLS", key=key)
    stranger = Client(f"wss://{base}/sub", token, backoff=(0.01, 0.01))
    errors: list[Exception] = []
    stranger.on("error", errors.append)
    async with stranger:  # which does not know the certificate
        await eventually(lambda: len(errors) > 1)
    assert {type(error) for error in errors} == {ssl.SSLCertVerificationError}
    async with Client(f"wss://{base}/sub", token, tls=daphne.tls) as client:
        message = await anext(aiter(client))
        assert (message.id, message.body) == (pushed.id, "over TLS")


async def test_the_python_client_over_tcp_with_tls(tmp_path: Path, embedded: System) -> None:
    key, certificate = write_certificate(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    token = manage(embedded.environment, "token", "over TCP")
    logs.forbid(token)

    ends: list[asyncio.Task[Any] | None] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As a load balancer does that ends TLS."""
        ends.append(asyncio.current_task())
        inside, outside = await asyncio.open_connection(HOST, embedded.nodes[0].tcp_port)
        await asyncio.gather(carry(reader, outside), carry(inside, writer))

    async with await asyncio.start_server(forward, HOST, 0, ssl=serving) as server:
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cafile=str(certificate))
        async with Client(f"tcps://localhost:{port}", token, tls=trust) as client:
            await eventually(lambda: client.state == "open")
            assert await client.request("any") == {}
        await asyncio.wait_for(asyncio.gather(*ends), PATIENCE)
