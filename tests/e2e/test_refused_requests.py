"""`request()` of both clients fails, with the reason, if the project refuses the message."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgo_client import Client, Refused
from tests.push.hooks.fake_backend import Request, backend, response

from .harness import HOST, Embedded, System, logs
from .js_page import Page
from .test_hooks import SECRET
from .world import World, new_key

Enter = Callable[[System], Awaitable[World]]
Ask = Callable[[Any], Awaitable[Any]]  # a client's answer, or ("refused", code, message)

WITH_REASON = {"error": {"code": "sold_out", "message": "No seat is left."}}


@pytest.fixture(params=["imgo.js", "ws", "tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    """The JavaScript client, and the Python client with both transports."""
    return str(request.param)


@pytest.fixture
def ask_of(kind: str, enter: Enter, tmp_path: Path) -> Callable[[System], Any]:
    """Opens a session, and lets its client request something."""

    async def ask(system: System, *bodies: Any) -> list[Any]:
        world = await enter(system)
        token, node = await world.token(new_key()), world.node()
        if kind == "imgo.js":
            url = f"ws://{HOST}:{node.http_port}/sub"
            async with Page(url, tmp_path / "tab", [], token=token) as page:
                await page.wait_for("open")
                return [_of_page(await page.ask("request", body)) for body in bodies]
        ports = {"ws": f"ws://{HOST}:{node.http_port}/sub", "tcp": f"tcp://{HOST}:{node.tcp_port}"}
        async with Client(ports[kind], token) as client:
            opened = asyncio.Event()
            client.on("open", lambda _: opened.set())
            await opened.wait()
            return [await _of_client(client, body) for body in bodies]

    return ask


def _of_page(event: list[Any]) -> Any:
    what, *rest = event
    if what == "answer":
        return rest[0]
    assert rest[0] == "ImgoError"
    return ("refused", *rest[1:])


async def _of_client(client: Client, body: Any) -> Any:
    try:
        return await client.request(body)
    except Refused as error:
        return "refused", error.code, error.message


@pytest.fixture(scope="module")
def receiving(make_embedded: Callable[..., Embedded]) -> Iterator[Embedded]:
    """A node with a receiver of the project's own."""
    with make_embedded(IMGO_RECEIVER="tests.e2e.refusing_receiver.receive") as system:
        yield system


async def test_request_fails_if_the_receiver_raises(
    receiving: Embedded, ask_of: Callable[..., Awaitable[list[Any]]]
) -> None:
    assert await ask_of(receiving, "refuse", "fail", {"n": 1}) == [
        ("refused", "sold_out", "No seat is left."),
        ("refused", "error", "internal error"),
        {"n": 1},
    ]
    (complaint,) = logs.complaints()
    assert "ZeroDivisionError: a bug of the project" in complaint


def answer(request: Request) -> bytes:
    """A backend that answers with the status, and the JSON, that the message names."""
    status, value = request.body["body"]
    return response(status, value)


@pytest.fixture
async def hooked(make_embedded: Callable[..., Embedded]) -> AsyncIterator[Embedded]:
    """A node that asks a backend."""
    async with backend(answer) as stub:
        system = make_embedded(IMGO_RECEIVE_URL=f"{stub.url}/receive", IMGO_HOOK_SECRETS=SECRET)
        await asyncio.to_thread(system.start)
        try:
            yield system
        finally:
            await asyncio.to_thread(system.stop)


async def test_request_fails_if_the_backend_refuses(
    hooked: Embedded, ask_of: Callable[..., Awaitable[list[Any]]]
) -> None:
    plain = "The message was refused."
    unusable = "The backend gave no usable answer to the hook receive."
    cases: list[tuple[tuple[int, Any], Any]] = [
        ((400, None), ("refused", "bad_request", plain)),
        ((403, None), ("refused", "forbidden", plain)),
        ((400, WITH_REASON), ("refused", "sold_out", "No seat is left.")),
        ((409, WITH_REASON), ("refused", "sold_out", "No seat is left.")),
        ((400, {"error": {"message": "Too late."}}), ("refused", "bad_request", "Too late.")),
        ((400, {"error": "for the log"}), ("refused", "bad_request", plain)),
        ((500, None), ("refused", "unavailable", unusable)),
        ((200, WITH_REASON), ("refused", "sold_out", "No seat is left.")),
        ((200, {"n": 1}), {"n": 1}),
        ((204, None), {}),
    ]
    answers = await ask_of(hooked, *[sent for sent, _ in cases])
    assert answers == [expected for _, expected in cases]
