"""Calls of the user's backend: signatures, the pool, the queue, and backends that fail."""

import asyncio
import base64
import gzip
import json
import socket

import pytest
from standardwebhooks import Webhook

from imgo_site.errors import Overloaded, Unavailable
from push.hooks.circuit_breaker import FAILURES, PAUSE, CircuitBreaker
from push.hooks.client import ANSWER_MAX, Hook, HookClient
from push.hooks.figures import HookFigures, sums
from push.hooks.signature import secret_bytes
from push.metrics import definitions as metrics
from tests import eventually

from .fake_backend import Backend, backend, dripping, response

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NEW_SECRET = "whsec_" + base64.b64encode(b"another secret of thirty-two byte").decode()


@pytest.fixture
async def client():
    client = HookClient()
    yield client
    await client.close()


@pytest.fixture
def use(imgo):
    def use_backend(found: Backend, **more) -> None:
        imgo(
            AUTHENTICATE_URL=f"{found.url}/hook",
            RECEIVE_URL=f"{found.url}/receive",
            HOOK_SECRETS=[SECRET],
            **more,
        )

    return use_backend


def outcome(name: str, hook: str = "authenticate") -> float:
    return metrics.HOOK_CALLS.labels(hook, name)._value.get()


async def test_request_is_signed_by_the_standard_webhooks_specification(client, use, imgo):
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found)
        imgo(HOOK_SECRETS=[NEW_SECRET, SECRET], AUTHENTICATE_URL=f"{found.url}/hook?a=1")
        answer = await client.call(Hook.AUTHENTICATE, {"token": "t", "ä": "ö"})
    assert answer == (200, {"key": "u1"}, "")
    (request,) = found.requests
    assert request.path == "/hook?a=1"
    for secret in (SECRET, NEW_SECRET):  # the receiver may know either of them
        assert Webhook(secret).verify(request.raw, request.headers) == {"token": "t", "ä": "ö"}


async def test_storm_of_calls_opens_no_more_connections_than_the_pool(client, use):
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found, HOOK_CONNECTIONS=4)
        client = HookClient()
        answers = await asyncio.gather(
            *(client.call(Hook.AUTHENTICATE, {"n": n}) for n in range(60))
        )
        await client.close()
    assert len(answers) == 60
    assert found.connections <= 4
    assert sorted(request.body["n"] for request in found.requests) == list(range(60))


async def test_calls_that_would_wait_too_long_are_refused_at_once(use):
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found, HOOK_CONNECTIONS=1, HOOK_TIMEOUT=1.0)  # 10 calls of 50 ms wait at most
        found.gate = asyncio.Event()
        client = HookClient()
        before = outcome("overloaded")
        calls = [asyncio.ensure_future(client.call(Hook.AUTHENTICATE, {})) for _ in range(30)]
        await eventually(lambda: outcome("overloaded") - before == 19)
        found.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await client.close()
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(refused) == 19
    assert all(one.message.startswith("overloaded") for one in refused)
    assert len(found.requests) == 11


async def test_wait_for_a_connection_counts_as_no_failure_of_the_backend(use):
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found, HOOK_CONNECTIONS=1, HOOK_TIMEOUT=0.4)
        client = HookClient()
        found.gate = asyncio.Event()
        before, timeouts = outcome("overloaded"), outcome("timeout")
        slow = [asyncio.ensure_future(client.call(Hook.AUTHENTICATE, {})) for _ in range(4)]
        await asyncio.gather(*slow, return_exceptions=True)
        assert outcome("overloaded") - before == 3  # all but the one that was sent
        found.gate.set()
        assert outcome("timeout") - timeouts == 1
        assert (await client.call(Hook.AUTHENTICATE, {})).status == 200
        await client.close()


async def test_call_that_waited_for_half_of_its_time_is_not_made(use):
    """It would soon end without its answer, while the backend still works for it."""
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found, HOOK_CONNECTIONS=1, HOOK_TIMEOUT=2.0)
        found.gate = asyncio.Event()
        client = HookClient()
        slow = asyncio.ensure_future(client.call(Hook.AUTHENTICATE, {}))
        await eventually(lambda: found.requests)
        with pytest.raises(Overloaded):
            await client.call(Hook.AUTHENTICATE, {})
        found.gate.set()
        assert (await slow).status == 200  # it has its whole time
        await client.close()
    assert len(found.requests) == 1


async def test_call_of_a_client_that_has_gone_is_not_made(client, use):
    async with backend(lambda _: response(200, {})) as found:
        use(found)
        with pytest.raises(Unavailable):
            await client.call(Hook.AUTHENTICATE, {}, lambda: True)
    assert not found.requests


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(500), "bad_answer"),
        (response(404), "bad_answer"),
        (response(302, None, "Location: http://127.0.0.1:1/"), "bad_answer"),
        (response(200, b"<html>"), "bad_answer"),
        (response(200, b"[" * 60_000), "bad_answer"),
        (response(200, b'"' + b"a" * ANSWER_MAX + b'"'), "bad_answer"),
        (response(200, gzip.compress(b"{}", mtime=0), "Content-Encoding: gzip"), "bad_answer"),
        (response(401, {"code": "bad_signature", "error": "no secret"}), "bad_answer"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "bad_answer",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n{}", "unreachable"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "unreachable"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "timeout"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "timeout"),
        (b"no HTTP at all\r\n\r\n", "unreachable"),
        (None, "timeout"),
    ],
)
async def test_answer_that_cannot_be_used_is_unavailable(client, use, answer, reason):
    async with backend(lambda _: answer) as found:
        use(found, HOOK_TIMEOUT=0.3)
        before = outcome(reason)
        with pytest.raises(Unavailable):
            await client.call(Hook.AUTHENTICATE, {})
    assert outcome(reason) == before + 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + response(200, {"n": 1}),
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"n\r\n5\r\n": 1}\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"n": 1}',
        b'HTTP/1.0 200 OK\r\n\r\n{"n": 1}',
        response(200, {"n": 1}, "Set-Cookie: a=b"),
    ],
    ids=["after 1xx", "chunked", "until the end", "HTTP/1.0", "with a cookie"],
)
async def test_answer_in_any_form_of_http_is_read(client, use, answer):
    async with backend(lambda _: answer) as found:
        use(found)
        found.closes_after_answer = True
        assert await client.call(Hook.AUTHENTICATE, {}) == (200, {"n": 1}, "")
        assert await client.call(Hook.AUTHENTICATE, {}) == (200, {"n": 1}, "")
    assert [request.headers["accept-encoding"] for request in found.requests] == ["identity"] * 2
    assert not [request for request in found.requests if "cookie" in request.headers]


async def test_answer_that_ends_early_is_unavailable_and_not_repeated(client, use):
    async with backend(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}") as found:
        use(found)
        found.closes_after_answer = True
        before = outcome("unreachable")
        with pytest.raises(Unavailable):
            await client.call(Hook.AUTHENTICATE, {})
    assert outcome("unreachable") == before + 1
    assert len(found.requests) == 1


async def test_answer_that_comes_byte_by_byte_ends_in_time(client, use):
    async with dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b" ") as found:
        use(found, HOOK_TIMEOUT=0.3)
        before = outcome("timeout")
        with pytest.raises(Unavailable):
            await client.call(Hook.AUTHENTICATE, {})
    assert outcome("timeout") == before + 1


async def test_broken_connection_costs_one_repetition_with_the_same_id(client, use):
    """All kept connections end at once, as when a backend restarts."""
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found, HOOK_CONNECTIONS=4)
        found.gate = asyncio.Event()
        calls = [asyncio.ensure_future(client.call(Hook.AUTHENTICATE, {})) for _ in range(4)]
        await eventually(lambda: len(found.requests) == 4)
        found.gate.set()
        await asyncio.gather(*calls)
        found.gate = None
        found.hangs_up = True
        with pytest.raises(Unavailable):
            await client.call(Hook.AUTHENTICATE, {})
    first, second = found.requests[4:]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.raw == second.raw
    assert found.connections == 5


async def test_url_with_a_name_that_has_no_address_is_unavailable(
    client, imgo, caplog, monkeypatch
):
    def find_none(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find_none)
    imgo(AUTHENTICATE_URL="http://backend.invalid/", HOOK_SECRETS=[SECRET])
    with pytest.raises(Unavailable):
        await client.call(Hook.AUTHENTICATE, {})
    assert "the host name 'backend.invalid' has no address" in caplog.text


async def test_environment_names_no_proxy(client, use, monkeypatch, closed_port):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("NO_PROXY", "")
    async with backend(lambda _: response(200, {})) as found:
        use(found)
        assert (await client.call(Hook.AUTHENTICATE, {})).status == 200


async def test_figures_have_each_hooks_calls_time_and_circuit(client, use):
    async with backend(lambda _: response(200, {})) as found:
        use(found)
        await client.call(Hook.AUTHENTICATE, {})
        found.answer = lambda _: response(500)
        for _ in range(FAILURES + 1):
            with pytest.raises(Unavailable):
                await client.call(Hook.AUTHENTICATE, {})
    hooks = client.figures()
    (receive, authenticate) = sums([("n1", hooks), ("n2", {"authenticate": HookFigures()})])[::-1]
    assert receive == {
        "hook": "receive",
        "calls": 0,
        "failures": {},
        "open_on": [],
        "mean_ms": None,
    }
    assert authenticate.pop("mean_ms") == round(1000 * hooks["authenticate"].seconds, 1) > 0
    assert authenticate == {
        "hook": "authenticate",
        "calls": FAILURES + 2,
        "failures": {"bad_answer": FAILURES, "circuit_open": 1},
        "open_on": ["n1"],
    }


async def test_backend_that_is_not_there_is_unavailable(client, imgo):
    imgo(AUTHENTICATE_URL="http://127.0.0.1:1/", HOOK_SECRETS=[SECRET])
    before = outcome("unreachable")
    with pytest.raises(Unavailable):
        await client.call(Hook.AUTHENTICATE, {})
    assert outcome("unreachable") == before + 1


async def test_connection_that_the_backend_had_closed_costs_no_answer(client, use):
    async with backend(lambda _: response(200, {"key": "u1"})) as found:
        use(found)
        found.closes_after_answer = True
        for _ in range(5):
            assert (await client.call(Hook.AUTHENTICATE, {})).status == 200
    ids = {request.headers["webhook-id"] for request in found.requests}
    assert len(ids) == 5


async def test_refusals_are_answers_and_open_no_circuit(client, use):
    async with backend(lambda _: response(403, {"detail": "no"})) as found:
        use(found)
        for _ in range(2 * FAILURES):
            assert await client.call(Hook.AUTHENTICATE, {}) == (403, {"detail": "no"}, "no")
    assert client.open_circuits() == []


async def test_only_receive_passes_other_client_errors_on(client, use):
    async with backend(lambda _: response(422, {"error": "x"})) as found:
        use(found)
        assert (await client.call(Hook.RECEIVE, {})).status == 422
        with pytest.raises(Unavailable):
            await client.call(Hook.AUTHENTICATE, {})


async def test_backend_that_keeps_failing_is_left_alone_for_a_while(client, use):
    async with backend(lambda _: response(500)) as found:
        use(found)
        for _ in range(FAILURES + 5):
            with pytest.raises(Unavailable):
                await client.call(Hook.AUTHENTICATE, {})
    assert len(found.requests) == FAILURES
    assert client.open_circuits() == ["authenticate"]


def test_circuit_is_tried_again_after_pauses_that_grow_until_it_works():
    now = [100.0]
    breaker = CircuitBreaker(lambda: now[0])
    for _ in range(FAILURES):
        assert breaker.may_call()
        breaker.failed()
    pauses = []
    for _ in range(8):
        begin = now[0]
        while not breaker.may_call():
            now[0] += 0.5
        assert not breaker.may_call()  # one trial at a time
        pauses.append(now[0] - begin)
        breaker.failed()
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses[0] == PAUSE[0]
    now[0] += PAUSE[1]
    assert breaker.may_call()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.may_call()
    assert breaker.may_call()


@pytest.mark.parametrize("secret", ["whsec_!", "whsec_" + "YQ==", "", "whsec_" + "YWFh" * 30])
def test_secret_that_is_none_is_refused_without_showing_it(secret):
    with pytest.raises(ValueError, match=r"base64|bytes") as caught:
        secret_bytes(secret)
    assert not secret or secret not in str(caught.value)


async def test_body_of_any_text_reaches_the_backend_as_json(client, use):
    async with backend(lambda _: response(204)) as found:
        use(found)
        data = {"text": "\ud83d\ude00 \u2028 \x00", "deep": [[[1.5, None, True]]]}
        assert await client.call(Hook.RECEIVE, data) == (204, None, "")
    assert json.loads(found.requests[0].raw) == json.loads(json.dumps(data))
