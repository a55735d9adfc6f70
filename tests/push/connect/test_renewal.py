"""Op 7 in an open session: another token for the same key, or a refusal that changes nothing."""

import json
import time

import jwt
import pytest

from accounts.auth_body import parse_auth_body
from accounts.identity import Facts, Identity, authenticate
from push.connect.handlers import handle
from push.session.outgoing import Kind
from push.wire import Frame, Op
from tests.push.sessions import admit, frames

SECRET = "s" * 32


@pytest.fixture(autouse=True)
def _jwts(imgo):
    imgo(JWT_SECRET=SECRET, JWT_LEEWAY=0)


def token(key: str = "u1", lasts: float = 100, **claims) -> str:
    return jwt.encode({"sub": key, "exp": int(time.time() + lasts), **claims}, SECRET)


async def renew(node, session, body: bytes) -> dict:
    await handle(node, session, Frame(1, Op.AUTH, 3, body))
    reply = frames(session)[-1]
    assert (reply.op, reply.seq) == (Op.AUTH_REPLY, 3)
    return json.loads(reply.body or b"{}")


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.BINARY, Kind.TCP, Kind.EVENTS])
async def test_renewal_with_a_token_of_the_key_moves_the_expiry(node, kind):
    session = await admit(node, "u1", "r", kind=kind)
    session.expires_at = time.time() + 1
    reply = await renew(node, session, json.dumps({"token": token(rooms=["x"])}).encode())
    assert 90 < reply["expires_in"] <= 101
    assert 90 < session.expires_at - time.time() <= 101
    assert session.identity.rooms == ("x",)
    assert session.rooms == {"r"}


@pytest.mark.parametrize("form", ["{}", '"{}"'])
async def test_renewal_takes_a_bare_token_and_a_json_string(node, form):
    session = await admit(node, "u1")
    assert "expires_in" in await renew(node, session, form.format(token()).encode())


@pytest.mark.parametrize(
    "other",
    [
        {"rooms": 5, "platform": 5, "since": "x", "room_id": 7, "mid": "x", "accepts": 1},
        {"rooms": {"a": {}}, "room_id": "b"},
        {"rooms": [f"r{n}" for n in range(101)], "names": True},
    ],
)
async def test_renewal_ignores_other_members_than_the_token(node, other):
    session = await admit(node, "u1", "r")
    reply = await renew(node, session, json.dumps({"token": token(), **other}).encode())
    assert "expires_in" in reply
    assert session.rooms == {"r"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lambda: token("u2"), "forbidden"),
        (lambda: token(lasts=-10), "not_authenticated"),
        (lambda: token()[:-3] + "abc", "not_authenticated"),
        (lambda: "unknown", "not_authenticated"),
        (lambda: "", "not_authenticated"),
        (lambda: "{}", "not_authenticated"),
        (lambda: '{"token": 7}', "bad_request"),
        (lambda: '{"token": "x", "rooms": ["imgo.dashboard"]}', "not_authenticated"),
    ],
)
async def test_renewal_that_is_refused_leaves_the_session_as_it_was(node, body, code):
    session = await admit(node, "u1")
    identity, session.expires_at = session.identity, 12_345.0
    reply = await renew(node, session, body().encode())
    assert reply["error"]["code"] == code
    assert (session.identity, session.expires_at) == (identity, 12_345.0)
    assert not session.is_closed


async def test_renewal_keeps_the_alias_whose_group_the_session_is_in(node):
    session = await admit(node, "u1")
    session.identity = Identity("u1", alias="goim")
    await renew(node, session, token().encode())
    assert session.identity.alias == "goim"


async def test_expiry_is_told_to_clients_that_ask(node):
    body = parse_auth_body(json.dumps({"token": token(), "renew": True}).encode())
    assert body.renews
    assert not parse_auth_body(b'{"token": "x", "renew": false}').renews
    assert (await authenticate(body, Facts("tcp", clock=node.clock))).expires_at is not None
