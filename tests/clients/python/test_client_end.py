"""The end of the Python client: close, cancel, and a new start."""

import asyncio

import pytest

from imgo_client import Closed, NotOpen
from tests import eventually

from .peers import quiet, take

# Not over Server-Sent Events, where there are no heartbeats, and one frame waits for the other.
BY_FRAMES = pytest.mark.parametrize("scheme", ["ws", "tcp"], indirect=True)


async def test_the_last_acknowledgement_leaves_before_the_close(serve, make):
    said = []

    async def script(peer):
        await peer.accept()
        await peer.push(1)
        said.extend(await peer.until_gone())

    client, _ = make(await serve(script))
    async with client:
        await take(client, 1)
    await eventually(lambda: [frame.body for frame in said] == [["1"]])


@pytest.mark.parametrize("moment", ["connecting", "open", "waiting", "in a handler", "asking"])
async def test_it_can_be_cancelled_at_any_moment(serve, make, moment):
    async def script(peer):
        if moment != "connecting":
            await peer.accept()
        if moment == "waiting":
            await peer.close(4000)
        elif moment == "in a handler":
            await peer.push(1)
        await peer.until_gone()

    async def handler(message):
        reached.set()
        await asyncio.Event().wait()

    async def work():
        async with client:
            if moment == "asking":
                await eventually(lambda: client.state == "open")
                reached.set()
                await client.request(1)
            await client.run(handler)

    reached = asyncio.Event()
    client, log = make(await serve(script), backoff=(30, 30), timeout=30)
    task = asyncio.ensure_future(work())
    if moment in ("in a handler", "asking"):
        await reached.wait()
    else:
        await eventually(lambda: client.state == moment)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (client.state, log.of("error")) == ("closed", [])


async def test_close_ends_a_loop_in_another_task(serve, make):
    client, _ = make(await serve(quiet))
    async with client:
        loop = asyncio.ensure_future(client.run(print))
        await eventually(lambda: client.state == "open")
        await client.close()
        await client.close()
        await loop
    with pytest.raises(NotOpen):
        await client.request(1)


async def test_a_close_in_the_moment_of_the_opening_sends_what_is_due(serve, make, monkeypatch):
    async def flush(session):
        flushed.append(session)

    flushed: list[object] = []
    monkeypatch.setattr("imgo_client.session.Session.flush", flush)
    client, log = make(await serve(quiet))
    client.on("open", lambda _: closings.append(asyncio.ensure_future(client.close())))
    closings: list[asyncio.Future[None]] = []
    async with client:
        await eventually(lambda: bool(closings))
        await closings[0]
    assert len(flushed) == 1
    assert log.of("error") == []


async def test_a_close_that_is_cancelled_ends_at_once(serve, make, monkeypatch):
    async def never(session):
        flushing.set()
        await asyncio.Event().wait()

    flushing = asyncio.Event()
    monkeypatch.setattr("imgo_client.lifetime.PARTING", 1_000)
    client, log = make(await serve(quiet))
    async with client:
        await eventually(lambda: client.state == "open")
        monkeypatch.setattr("imgo_client.session.Session.flush", never)
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)  # `close` has begun, and has not reached the parting yet
        flushing.clear()  # the session itself may have flushed before
        await flushing.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await eventually(lambda: client.state == "closed")
    assert log.of("error") == []


@BY_FRAMES
async def test_connected_ends_with_the_client(serve, make):
    async def refuse(peer):
        await peer.close(4503, "replaced")

    async def say_nothing(peer):
        await peer.until_gone()

    client, _ = make(await serve(refuse))
    async with client:
        with pytest.raises(Closed, match="4503 replaced"):
            await client.connected()
    client, _ = make(await serve(say_nothing))
    async with client:
        waiting = asyncio.create_task(client.connected())
        await asyncio.sleep(0)
    with pytest.raises(NotOpen):
        await waiting


async def test_it_begins_anew_after_it_was_closed_for_good(serve, make):
    async def script(peer):
        await peer.accept()
        await peer.push(len(server.peers))
        if len(server.peers) == 1:
            await peer.close(4503, "replaced")
        await peer.until_gone()

    server = await serve(script)
    client, _ = make(server)
    async with client:
        assert await take(client, 1) == [1]
        with pytest.raises(Closed, match="4503 replaced"):
            await take(client, 1)
    async with client:
        assert await take(client, 1) == [2]
