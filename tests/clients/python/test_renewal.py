"""Another token before the one of the session expires."""

import pytest

from imgo_client import Client, Refused, renewal
from imgo_client.frames import Op
from tests import eventually

from .peers import Log


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(renewal, "PAUSE_MIN", 0.0)


def tokens(*given):
    """A token function, and what it has given so far."""
    asked = []

    async def token():
        one = given[min(len(asked), len(given) - 1)]
        asked.append(one)
        if isinstance(one, Exception):
            raise one
        return one

    return token, asked


async def test_client_sends_a_new_token_before_the_old_one_expires(serve, scheme):
    bodies = []

    async def script(peer):
        (auth,) = await peer.read()
        bodies.append(auth.body)
        await peer.send(auth._replace(op=Op.AUTH_REPLY, body={"expires_in": 0.05}))
        bodies.append(await peer.expect(Op.AUTH, {"expires_in": 0.05}))
        bodies.append(await peer.expect(Op.AUTH, {}))
        await peer.until_gone()

    server = await serve(script)
    token, asked = tokens("one", "two", "three")
    async with Client(server.url, token):
        await eventually(lambda: len(bodies) == 3)
    assert bodies == [
        # The first event of a stream always has the time.
        {"token": "one", "ack": True, **({} if scheme == "http" else {"renew": True})},
        {"token": "two"},
        {"token": "three"},
    ]
    assert asked == ["one", "two", "three"]
    assert len(server.peers) == 1


async def test_failed_renewals_are_reported_and_repeated_while_there_is_time(serve):
    refusal = {"error": {"code": "unavailable", "message": "later"}}
    bodies = []

    async def script(peer):
        (auth,) = await peer.read()
        await peer.send(auth._replace(op=Op.AUTH_REPLY, body={"expires_in": 0.2}))
        bodies.append(await peer.expect(Op.AUTH, refusal))
        bodies.append(await peer.expect(Op.AUTH, {"expires_in": 300}))
        await peer.until_gone()

    server = await serve(script)
    token, _ = tokens("one", ValueError("no token today"), "two", "three")
    client = Client(server.url, token)
    log = Log(client)
    async with client:
        await eventually(lambda: len(bodies) == 2)
    assert bodies == [{"token": "two"}, {"token": "three"}]
    assert [type(error) for error in log.of("error")] == [ValueError, Refused]


@pytest.mark.parametrize("reply", [{}, {"expires_in": None}, {"expires_in": "soon"}, None])
def test_a_reply_without_an_expiry_means_never(reply):
    assert renewal.expiry_of(reply) is None


async def test_without_a_token_function_nothing_is_asked_for(serve):
    async def script(peer):
        (auth,) = await peer.read()
        assert "renew" not in auth.body
        await peer.send(auth._replace(op=Op.AUTH_REPLY, body={"expires_in": 0}))
        assert await peer.expect(Op.SEND, {}) == "still here"
        await peer.until_gone()

    server = await serve(script)
    async with Client(server.url, "abc") as client:
        await eventually(lambda: client.state == "open")
        await client.request("still here")
