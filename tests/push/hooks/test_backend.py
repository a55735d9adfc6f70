"""The questions of the hooks: what is asked, and what each answer means."""

import base64
import json
from typing import Any

import pytest

from accounts.auth_body import AuthBody, parse_auth_body
from accounts.identity import Facts, Identity
from imgo_site.errors import (
    BackendUnavailable,
    BadRequest,
    Forbidden,
    NotAuthenticated,
    Unavailable,
)
from push.hooks import backend as questions
from push.hooks.circuit_breaker import FAILURES
from push.hooks.client import Hook, HookClient
from tests.accounts.test_identity import CLOCK

from .fake_backend import Request, backend, response
from .test_client import SECRET

FACTS = Facts("websocket", "192.0.2.7", {"origin": "https://a.example", "cookie": "c=1"}, CLOCK)


def here() -> bool:
    return False


async def authenticate(imgo, answer: bytes, body: AuthBody | None = None) -> tuple[Any, Request]:
    """Ask a backend with this answer: the identity, and what it was asked."""
    async with backend(lambda _: answer) as found:
        imgo(AUTHENTICATE_URL=found.url, HOOK_SECRETS=[SECRET])
        client = HookClient()
        try:
            identity = await questions.authenticate(
                client, body or AuthBody(token="t", raw=b"t"), FACTS, here
            )
        finally:
            await client.close()
    return identity, found.requests[0]


async def test_backend_is_asked_with_all_that_is_known_of_a_client(imgo):
    body = parse_auth_body(b'{"token":"t","rooms":["a"],"platform":"web","device":"d","x":1}')
    _, request = await authenticate(imgo, response(200, {"key": "u1"}), body)
    assert request.body == {
        "token": "t",
        "rooms": ["a"],
        "platform": "web",
        "device": "d",
        "transport": "websocket",
        "address": "192.0.2.7",
        "scheme": "http",
        "headers": {"origin": "https://a.example", "cookie": "c=1"},
        "auth": body.raw.decode(),
    }


async def test_auth_body_that_is_no_text_is_sent_in_base64(imgo):
    raw = b"\xff\x00binary"
    body = AuthBody(raw=raw, is_bare=True)
    _, request = await authenticate(imgo, response(200, {"key": "u1"}), body)
    assert base64.b64decode(request.body["auth_base64"]) == raw


@pytest.mark.parametrize(
    ("answer", "identity"),
    [
        ({"key": "u1"}, Identity("u1", source="hook")),
        ({"key": "u1", "rooms": None, "join": None}, Identity("u1", source="hook")),
        ({"key": "u1", "rooms": []}, Identity("u1", (), source="hook")),
        (
            {"key": "u1", "rooms": ["a-*"], "join": ["b"], "expires_in": 60, "more": 1},
            Identity("u1", ("a-*",), 60, "hook", join=("b",)),  # seconds from the answer
        ),
    ],
)
async def test_answer_becomes_the_identity(imgo, answer, identity):
    found, _ = await authenticate(imgo, response(200, answer))
    if identity.expires_at is not None:
        assert identity.expires_at - 50 < found.expires_at - CLOCK.now() <= identity.expires_at
        found = Identity(found.key, found.rooms, identity.expires_at, found.source, join=found.join)
    assert found == identity


@pytest.mark.parametrize("status", [401, 403])
async def test_refusal_of_the_backend_is_one_of_the_login(imgo, status):
    with pytest.raises(NotAuthenticated):
        await authenticate(imgo, response(status, {"detail": "no such user"}))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"key": ""},
        {"key": 7},
        {"key": "a\x00"},
        {"key": "u1", "rooms": "a"},
        {"key": "u1", "rooms": [1]},
        {"key": "u1", "join": ["a*"]},
        {"key": "u1", "expires_in": 0},
        {"key": "u1", "expires_in": -5},
        {"key": "u1", "expires_in": True},
        {"key": "u1", "expires_in": "60"},
        {"key": "u1", "expires_in": 1e300},
    ],
)
async def test_answer_without_a_valid_identity_lets_nobody_in(imgo, answer):
    with pytest.raises(Unavailable):
        await authenticate(imgo, response(200, answer))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda client: questions.authenticate(client, AuthBody(), FACTS, here), "A key must be"),
        (
            lambda client: questions.authorize_room(client, Identity("u1"), "a", here),
            "'allowed', true or false",
        ),
    ],
    ids=["authenticate", "authorize_room"],
)
async def test_answer_with_wrong_types_is_a_failure_and_opens_the_circuit(imgo, caplog, ask, said):
    async with backend(lambda _: response(200, {"key": 7, "allowed": "yes"})) as found:
        imgo(AUTHENTICATE_URL=found.url, AUTHORIZE_ROOM_URL=found.url, HOOK_SECRETS=[SECRET])
        client = HookClient()
        for _ in range(FAILURES + 1):
            with pytest.raises(BackendUnavailable):
                await ask(client)
        opened = client.open_circuits()
        await client.close()
    assert len(opened) == 1
    assert len(found.requests) == FAILURES
    assert f"the hook {opened[0]} failed (bad_answer): its answer cannot be used" in caplog.text
    assert said in caplog.text


async def test_auth_body_with_a_mistake_is_refused_without_asking(imgo):
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        imgo(AUTHENTICATE_URL=found.url, HOOK_SECRETS=[SECRET])
        with pytest.raises(BadRequest):
            await questions.authenticate(HookClient(), AuthBody(mistake="wrong"), FACTS, here)
    assert not found.requests


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (response(200, {"allowed": True}), True),
        (response(200, {"allowed": False}), False),
        (response(403), False),
        (response(401), False),
        (response(200, {"allowed": 1}), None),
        (response(200, {}), None),
        (response(204), None),
        (response(500), None),
    ],
)
async def test_backend_decides_who_may_join_a_room(imgo, answer, allowed):
    async with backend(lambda _: answer) as found:
        imgo(AUTHORIZE_ROOM_URL=found.url, HOOK_SECRETS=[SECRET])
        client = HookClient()
        try:
            if allowed is None:
                with pytest.raises(Unavailable):
                    await questions.authorize_room(client, Identity("u1"), "a", here)
            else:
                assert await questions.authorize_room(client, Identity("u1"), "a", here) is allowed
        finally:
            await client.close()
    assert found.requests[0].body == {"key": "u1", "room": "a", "source": "token", "action": "join"}


@pytest.mark.parametrize(
    ("sent", "member"),
    [
        ({"a": 1}, {"body": {"a": 1}}),
        ("text", {"body": "text"}),
        (b"\xff", {"body_base64": "/w=="}),
    ],
)
async def test_upstream_message_gets_the_backends_reply(imgo, sent, member):
    async with backend(lambda _: response(200, {"ok": True})) as found:
        imgo(RECEIVE_URL=found.url, HOOK_SECRETS=[SECRET])
        client = HookClient()
        reply = await questions.receive(client, Identity("u1"), 4, sent)
        await client.close()
    assert reply == {"ok": True}
    assert found.requests[0].body == {"key": "u1", "op": 4, **member}


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequest), (403, Forbidden), (422, BadRequest), (500, Unavailable)]
)
async def test_upstream_message_may_be_refused(imgo, status, kind):
    async with backend(lambda _: response(status)) as found:
        imgo(RECEIVE_URL=found.url, HOOK_SECRETS=[SECRET])
        client = HookClient()
        with pytest.raises(kind):
            await questions.receive(client, Identity("u1"), 4, {})
        await client.close()


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error": {"code": "sold_out", "message": "None left."}}, "sold_out", "None left."),
        ({"error": {"code": "sold_out"}}, "sold_out", "The message was refused."),
        ({"error": {"message": "m" * 2000}}, "bad_request", "m" * 1000),
        ({"error": {"code": "c" * 101, "message": 7}}, "bad_request", "The message was refused."),
        ({"error": "text"}, "bad_request", "The message was refused."),
        ([], "bad_request", "The message was refused."),
        (b"<html>", "bad_request", "The message was refused."),
        (b"x" * 70_000, "bad_request", "The message was refused."),
    ],
)
async def test_refusal_of_a_message_carries_the_backends_reason(imgo, body, code, message):
    async with backend(lambda _: response(400, body)) as found:
        imgo(RECEIVE_URL=found.url, HOOK_SECRETS=[SECRET])
        client = HookClient()
        with pytest.raises(BadRequest) as caught:
            await questions.receive(client, Identity("u1"), 4, {})
        await client.close()
    assert (caught.value.code, caught.value.message) == (code, message)
    assert BadRequest.code == "bad_request"


def test_each_hook_has_its_setting(imgo):
    imgo(AUTHENTICATE_URL="https://a.example/1", RECEIVE_URL="https://a.example/3")
    assert [hook.url for hook in Hook] == ["https://a.example/1", "", "https://a.example/3"]
    assert json.dumps(Hook.AUTHENTICATE) == '"authenticate"'
