"""The publishers against an HTTP server that fails as the test says: nothing is doubled or lost."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

import imgo_client
from imgo_client import AsyncPublisher, Publisher, Push, Retry
from tests import eventually

KEY = "the-api-key-of-the-tests"
QUICK = Retry(attempts=4, total=20, backoff=(0.001, 0.01))
PLAIN = {"trust_env": False, "verify": False}  # no proxy, and no time for certificates
UNAVAILABLE = {"status": 503, "code": "unavailable", "title": "Unavailable", "retry": True}
BAD = {"status": 400, "code": "bad_request", "detail": "No such key.", "retry": False}

# What is done with one request: None takes it as a server does.
Fault = Callable[["Handler", list[dict[str, Any]]], None]


class Server(ThreadingHTTPServer):
    """Takes pushes as imgo does: one for each dedupe id."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults: list[Fault | None] = []  # of the next requests
        self.ids: dict[str, int] = {}  # dedupe id → id
        self.accepted: list[Any] = []  # bodies
        self.requests: list[tuple[str, int]] = []  # path, number of pushes
        self.connections = 0
        self.lock = threading.Lock()

    def accept(self, push: dict[str, Any]) -> dict[str, Any]:
        """The answer to one push."""
        if push["to"] == {"key": "refused"}:
            return {"error": BAD}
        with self.lock:
            if push["dedupe_id"] not in self.ids:
                self.ids[push["dedupe_id"]] = len(self.ids) + 1
                self.accepted.append(push["body"])
            return {"id": str(self.ids[push["dedupe_id"]])}

    def process_request(self, *args: Any) -> None:
        self.connections += 1
        super().process_request(*args)

    def handle_error(self, *_: Any) -> None:
        """A caller that hangs up is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Handler of one connection of the publisher."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/stream"):
            pushes = [json.loads(line) for line in content.splitlines()]
        else:
            value = json.loads(content)
            pushes = value if isinstance(value, list) else [value]
        self.server.requests.append((self.path, len(pushes)))
        self.is_array = content[:1] == b"["
        assert self.headers["Authorization"] == f"Api-Key {KEY}"
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is None:
            self.take(pushes)
        else:
            fault(self, pushes)

    def do_GET(self) -> None:
        self.server.requests.append((self.path, 0))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is None:
            self.answer(200, json.dumps({"asked": self.path}).encode())
        else:
            fault(self, [])

    def do_DELETE(self) -> None:
        self.do_GET()

    def take(self, pushes: list[dict[str, Any]]) -> None:
        self.answer(202, self.encoded([self.server.accept(push) for push in pushes]))

    def encoded(self, answers: list[Any]) -> bytes:
        if self.path.endswith("/stream"):
            return b"".join(json.dumps(one).encode() + b"\n" for one in answers)
        if self.is_array:
            return json.dumps(answers).encode()
        (answer,) = answers
        return json.dumps(answer).encode()

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""


def refuse(status: int, problem: Any = UNAVAILABLE, **headers: str) -> Fault:
    content = json.dumps({**problem, "status": status}).encode()
    return lambda handler, pushes: handler.answer(status, content, **headers)


def hang_up_before(handler: Handler, pushes: Any) -> None:
    handler.hang_up()


def hang_up_after(handler: Handler, pushes: Any) -> None:
    """Accepted, and the caller does not hear of it."""
    for push in pushes:
        handler.server.accept(push)
    handler.hang_up()


def cut_off(handler: Handler, pushes: Any) -> None:
    """Half of the answer."""
    content = handler.encoded([handler.server.accept(push) for push in pushes])
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.hang_up()


def fall_silent(handler: Handler, pushes: Any) -> None:
    """Accepted, and no answer for longer than anybody waits."""
    for push in pushes:
        handler.server.accept(push)
    handler.connection.recv(1)  # until the caller hangs up
    handler.hang_up()


def trickle(handler: Handler, pushes: Any) -> None:
    """Accepted, and an answer that comes byte by byte, for longer than anybody waits."""
    for push in pushes:
        handler.server.accept(push)
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.connection.settimeout(0.05)
    with contextlib.suppress(ConnectionError):  # the caller hangs up
        while True:
            handler.wfile.write(b" ")
            with contextlib.suppress(TimeoutError):
                if not handler.connection.recv(1):
                    break
    handler.hang_up()


def refuse_some(handler: Handler, pushes: Any) -> None:
    """Each second one cannot be stored now."""
    answers = [
        {"error": UNAVAILABLE} if place % 2 else handler.server.accept(push)
        for place, push in enumerate(pushes)
    ]
    handler.answer(200, handler.encoded(answers))


def refuse_ones(handler: Handler, pushes: Any) -> None:
    """Those whose body is 1 cannot be stored, however often they come."""
    answers = [
        {"error": UNAVAILABLE} if push["body"] == 1 else handler.server.accept(push)
        for push in pushes
    ]
    handler.answer(200, handler.encoded(answers))


def say(content: bytes) -> Fault:
    return lambda handler, pushes: handler.answer(200, content)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Both:
    """Calls a publisher of either kind, from plain code."""

    def __init__(self, kind: str, server: Server, **options: Any) -> None:
        self._kind, self._url = kind, server.url
        self._options = {"timeout": 10, "retry": QUICK, **PLAIN, **options}

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of one method, of a publisher that is closed afterwards."""
        if self._kind == "async":
            return asyncio.run(self._call(method, *args, **kwargs))
        with Publisher(self._url, KEY, **self._options) as publisher:
            found = getattr(publisher, method)(*args, **kwargs)
            return list(found) if method == "stream" else found

    async def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        async with AsyncPublisher(self._url, KEY, **self._options) as publisher:
            found = getattr(publisher, method)(*args, **kwargs)
            return [one async for one in found] if method == "stream" else await found


KINDS = ("sync", "async")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def call(kind: str, server: Server) -> Both:
    return Both(kind, server)


def some(count: int) -> list[Push]:
    return [Push(n, key=f"u{n}") for n in range(count)]


def test_a_push_is_what_the_api_takes() -> None:
    options = {"ttl": 60, "store": False, "op": 1_000, "ensure": True, "dedupe_id": "order-1"}
    assert json.loads(Push({"a": [1, "ż"]}, keys=("u1", "u2"), **options).encoded) == {
        "to": {"keys": ["u1", "u2"]},
        "body": {"a": [1, "ż"]},
        "ttl": 60,
        "store": "never",
        "op": 1_000,
        "ensure": True,
        "dedupe_id": "order-1",
    }
    for to in ({"key": "u1"}, {"room": "r"}, {"all": True}):
        push = Push(None, **to)
        expected = {"to": to, "body": None, "dedupe_id": push.dedupe_id}
        assert json.loads(push.encoded) == expected
        assert len(push.dedupe_id) == 32
    assert Push(1, key="u1").dedupe_id != Push(1, key="u1").dedupe_id


@pytest.mark.parametrize(
    ("send_at", "sent"),
    [
        (datetime(2026, 12, 24, 18, tzinfo=UTC), "2026-12-24T18:00:00+00:00"),
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
        (90, 90),
    ],
)
def test_time_of_a_push_is_sent_as_the_api_takes_it(send_at: Any, sent: Any) -> None:
    assert json.loads(Push(1, key="u1", send_at=send_at).encoded)["send_at"] == sent


def test_bytes_are_json_text_as_it_is() -> None:
    assert b'"body":{"a" : 1.00}' in Push(b'{"a" : 1.00}', key="u1").encoded
    assert b"\n" not in Push(b'{"a":\r\n1}', key="u1").encoded
    for body in (b"hello", b'1},{"to":{"all":true},"body":2', b"\xff", b"", b"NaN"):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            Push(body, key="u1")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"key": "a", "room": "b"},
        {"all": False},
        {"keys": "abc"},
        {"key": "a", "body": {1, 2}},
        {"key": "a", "body": float("nan")},
        {"key": "a", "send_at": datetime(2026, 12, 24)},
        {"key": "a", "exclude": "s-1"},
    ],
    ids=str,
)
def test_what_cannot_be_pushed_is_refused_where_it_is_made(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Push(**{"body": 1, **arguments})


def test_one_many_and_a_stream(call: Both, server: Server) -> None:
    result = call("push", {"hello": 1}, key="u1", ttl=5)
    assert (result.id, result.error, result.push.key) == (1, None, "u1")
    pushes = [Push(2, key="u1"), Push(3, key="refused"), Push(4, room="r")]
    results = call("push_many", pushes)
    assert [one.id for one in results] == [2, 0, 3]
    assert [one.push for one in results] == pushes
    assert isinstance(results[1].error, imgo_client.BadRequest)
    assert (results[1].error.code, results[1].error.retry) == ("bad_request", False)
    results = call("stream", iter(some(5)), piece=2)
    assert [one.id for one in results] == [4, 5, 6, 7, 8]
    assert server.requests[2:] == [("/api/v1/pushes/stream", n) for n in (2, 2, 1)]


def test_nothing_to_push_asks_nobody(call: Both, server: Server) -> None:
    assert (call("push_many", []), call("stream", [])) == ([], [])
    assert server.requests == []


def test_requests_are_bounded_and_share_a_connection(call: Both, server: Server) -> None:
    assert [one.id for one in call("push_many", some(1_200))] == list(range(1, 1_201))
    assert [n for _, n in server.requests] == [500, 500, 200]
    assert server.connections == 1
    large = [Push("x" * 400_000, key="u1") for _ in range(5)]
    assert [one.id for one in call("stream", large)] == list(range(1_201, 1_206))
    assert [n for _, n in server.requests[3:]] == [2, 2, 1]


async def test_an_asynchronous_iterable_is_a_stream_too(server: Server) -> None:
    async def source():
        for push in some(3):
            yield push

    async with AsyncPublisher(server.url, KEY, retry=QUICK, **PLAIN) as publisher:
        assert [one.id async for one in publisher.stream(source(), 2)] == [1, 2, 3]


FAULTS = {
    "429": refuse(429),
    "502": lambda handler, pushes: handler.answer(502, b"<html>Bad gateway"),
    "503": refuse(503, Retry_After="0"),
    "504": refuse(504),
    "hangs up before": hang_up_before,
    "hangs up after": hang_up_after,
    "answer cut off": cut_off,
    "falls silent": fall_silent,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("method", ["push", "push_many", "stream"])
@pytest.mark.long(
    but=[
        *(f"{kind}-push-{fault}" for kind in KINDS for fault in FAULTS),
        *(
            f"{kind}-{method}-answer cut off"
            for kind in KINDS
            for method in ("push_many", "stream")
        ),
    ]
)
def test_a_push_that_is_tried_again_is_accepted_once(
    kind: str, server: Server, fault: Fault, method: str
) -> None:
    call = Both(kind, server, timeout=1 if fault is fall_silent else 10)
    server.faults = [fault, fault, None]
    if method == "push":
        assert call("push", "body", key="u1").id == 1
        assert server.accepted == ["body"]
    else:
        assert [one.id for one in call(method, some(7))] == list(range(1, 8))
        assert server.accepted == list(range(7))
    assert len(server.requests) == 3


def test_answer_that_comes_too_slowly_is_given_up(kind: str, server: Server) -> None:
    """Each byte is in time. The relay's leases rely on the limit of the whole answer."""
    call = Both(kind, server, timeout=0.5)
    server.faults = [trickle]
    assert call("push", "body", key="u1").id == 1
    assert (server.accepted, len(server.requests)) == (["body"], 2)


@pytest.mark.parametrize("method", ["push_many", "stream"])
def test_only_those_that_failed_for_a_time_are_pushed_again(
    call: Both, server: Server, method: str
) -> None:
    server.faults = [refuse_some, refuse_some]
    results = call(method, [*some(6), Push(6, key="refused")])
    assert [one.id for one in results] == [1, 4, 2, 6, 3, 5, 0]
    assert [n for _, n in server.requests] == [7, 3, 1]
    assert sorted(server.accepted) == list(range(6))


def test_attempts_come_to_an_end(call: Both, server: Server) -> None:
    server.faults = [refuse(503)] * 9
    with pytest.raises(imgo_client.Unavailable) as caught:
        call("push", 1, key="u1")
    assert (caught.value.status, caught.value.code) == (503, "unavailable")
    server.faults = [hang_up_after] * 9
    push = Push(2, key="u1")
    with pytest.raises(imgo_client.Unreachable) as gone:
        call("push_many", [push])
    assert gone.value.pushes == (push,)
    server.faults = [refuse_ones] * 9
    results = call("push_many", some(2))
    assert [type(one.error) for one in results] == [type(None), imgo_client.Unavailable]
    assert [len(server.requests), server.accepted] == [12, [2, 0]]
    server.faults = []
    assert call("push_many", gone.value.pushes)[0].id == 1  # what was accepted, once more


UNKNOWN = {**UNAVAILABLE, "code": "outcome_unknown", "type": "urn:imgo:outcome_unknown"}


def test_push_of_unknown_outcome_is_retried_to_its_id(call: Both, server: Server) -> None:
    server.faults = [refuse(503, UNKNOWN), None]
    assert call("push", 1, key="u1").id == 1


@pytest.mark.parametrize(
    "faults", [[refuse(503, UNKNOWN)] * 9, [refuse(503, UNKNOWN), *[refuse(503)] * 8]]
)
@pytest.mark.parametrize("method", ["push", "push_many"])
def test_push_of_unknown_outcome_stays_unknown_when_retries_end(
    call: Both, server: Server, faults: list[Fault], method: str
) -> None:
    server.faults = list(faults)
    with pytest.raises(imgo_client.OutcomeUnknown) as caught:
        call("push", 1, key="u1") if method == "push" else call("push_many", some(2))
    assert caught.value.code == "outcome_unknown"
    assert caught.value.pushes


def test_push_refused_after_a_lost_answer_is_of_unknown_outcome(call: Both, server: Server) -> None:
    server.faults = [hang_up_after, *[refuse(503)] * 8]
    with pytest.raises(imgo_client.OutcomeUnknown):
        call("push", 1, key="u1")
    assert server.accepted == [1]


def test_time_comes_to_an_end_too(kind: str, server: Server) -> None:
    call = Both(kind, server, retry=Retry(attempts=100, total=0.2, backoff=(0.1, 0.1)))
    server.faults = [refuse(503)] * 99
    with pytest.raises(imgo_client.Unavailable):
        call("push", 1, key="u1")
    assert 1 <= len(server.requests) <= 3
    server.requests.clear()
    server.faults = [refuse(429, Retry_After="3600")]
    with pytest.raises(imgo_client.TooManyRequests):
        call("push", 1, key="u1")
    assert len(server.requests) == 1


REFUSALS = [
    (400, "BadRequest"),
    (401, "NotAuthenticated"),
    (403, "Forbidden"),
    (404, "NotFound"),
    (413, "TooLarge"),
    (418, "ApiError"),
    (500, "ApiError"),
    (302, "ApiError"),
]


@pytest.mark.parametrize(("status", "kind_of_error"), REFUSALS)
@pytest.mark.parametrize("method", ["push", "push_many", "stream"])
@pytest.mark.long(
    but=[
        *(f"{kind}-push-{status}-{name}" for kind in KINDS for status, name in REFUSALS),
        *(f"{kind}-{method}-413-TooLarge" for kind in KINDS for method in ("push_many", "stream")),
    ]
)
def test_a_refusal_is_an_exception_with_the_problem(
    call: Both, server: Server, status: int, kind_of_error: str, method: str
) -> None:
    server.faults = [refuse(status, BAD)]
    arguments = [[Push(1, key="u1")]] if method != "push" else [1]
    with pytest.raises(getattr(imgo_client, kind_of_error)) as caught:
        call(method, *arguments, **({"key": "u1"} if method == "push" else {}))
    assert type(caught.value).__name__ == kind_of_error
    assert caught.value.problem == {**BAD, "status": status}
    assert (caught.value.detail, caught.value.retry) == ("No such key.", False)
    assert str(caught.value) == f"{status} No such key."
    assert len(caught.value.pushes) == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Welcome",
        b"7",
        b"null",
        b"[]",
        b"{}",
        b'{"id":7}',
        b'{"id":"x"}',
        b"[7]",
        b"",
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
@pytest.mark.parametrize("method", ["push", "push_many", "stream"])
def test_what_is_no_answer_of_the_api_is_told(
    call: Both, server: Server, content: bytes, method: str
) -> None:
    server.faults = [say(content)] * 9
    arguments = [[Push(1, key="u1")]] if method != "push" else [1]
    with pytest.raises((imgo_client.BadAnswer, imgo_client.Unreachable)):
        call(method, *arguments, **({"key": "u1"} if method == "push" else {}))
    assert server.accepted == []


def test_nobody_listens(kind: str, server: Server, closed_port: int) -> None:
    server.url = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(imgo_client.Unreachable, match="ConnectError"):
        Both(kind, server)("push", 1, key="u1")


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-1", "1e9"])
def test_a_retry_after_in_the_past_or_of_nonsense_is_none(
    call: Both, server: Server, text: str
) -> None:
    server.faults = [refuse(503, Retry_After=text)]
    assert call("push", 1, key="u1").id == 1


def test_the_api_key_is_in_no_repr_and_no_log(
    call: Both, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", "httpx")  # Django's settings have it quiet
    server.faults = [hang_up_before, refuse(401, BAD)]
    with pytest.raises(imgo_client.NotAuthenticated) as caught:
        call("push", "the body of a push", key="u1")
    shown = [repr(caught.value), str(caught.value), repr(caught.value.problem)]
    for publisher in (Publisher(server.url, KEY), AsyncPublisher(server.url, KEY)):
        shown += [repr(publisher), repr(vars(publisher)), repr(vars(publisher._http))]
        if isinstance(publisher, Publisher):
            publisher.close()
    assert {record.name for record in caplog.records} >= {"httpx", "httpcore.http11"}
    assert not [text for text in (*shown, caplog.text) if KEY in text]
    assert repr(Publisher(server.url + "/", KEY)) == f"<Publisher {server.url}>"


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://", "http://user:pass@host"])
def test_a_wrong_address_is_refused_at_once(url: str) -> None:
    for publisher in (Publisher, AsyncPublisher):
        with pytest.raises(ValueError, match="the url"):
            publisher(url, KEY)


@pytest.mark.parametrize("key", ["", "a\nb", "ż"])
def test_a_wrong_key_is_refused_at_once_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match=r"^an API key is needed, in printable ASCII$"):
        Publisher("http://host", key)


async def test_a_cancelled_push_leaves_nothing_behind(server: Server) -> None:
    server.faults = [refuse(503, Retry_After="10")]
    before = asyncio.all_tasks()
    async with AsyncPublisher(server.url, KEY, **PLAIN) as publisher:
        task = asyncio.ensure_future(publisher.push(1, key="u1"))
        await eventually(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == before


# Calls besides pushing


def test_call_is_repeated_until_the_server_answers(server, call):
    server.faults = [refuse(503), hang_up_before, None]
    assert call("stats") == {"asked": "/api/v1/stats"}
    assert [path for path, _ in server.requests] == ["/api/v1/stats"] * 3


def test_call_that_is_refused_raises_at_once(server, call):
    server.faults = [refuse(404, {"code": "not_found", "detail": "No such token."})]
    with pytest.raises(imgo_client.NotFound, match="No such token"):
        call("token", "u1")
    assert len(server.requests) == 1


def test_call_without_an_answer_raises_unreachable(server, call):
    server.faults = [hang_up_before] * 4
    with pytest.raises(imgo_client.Unreachable):
        call("revoke_token", "u1")
    assert len(server.requests) == 4


@pytest.mark.parametrize("name", ["..", "a/b", "?x=1", "%2e", "a b"])
def test_call_names_a_key_in_its_path_as_it_is(server, call, name):
    asked = call("key", name)["asked"]
    assert unquote(asked) == f"/api/v1/keys/{name}"
    assert asked.count("/") == 4


def test_call_for_an_empty_key_is_refused_before_it_is_sent(server, call):
    with pytest.raises(ValueError, match="empty"):
        call("kick", "")
    assert server.requests == []


def test_check_pushes_nothing_and_raises_if_the_key_is_refused(server, call):
    assert call("check") is None
    assert server.requests == [("/api/v1/pushes", 0)]
    server.faults = [refuse(403, {"code": "forbidden"})]
    with pytest.raises(imgo_client.Forbidden):
        call("check")
    assert server.accepted == []


@pytest.mark.parametrize("content", [b"[{}]", b'{"ok":true}', b"<html>Welcome"])
def test_check_of_another_service_raises_bad_answer(server, call, content):
    server.faults = [say(content)] * 4
    with pytest.raises(imgo_client.BadAnswer):
        call("check")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            refuse(301, {}, Location="https://x.example/"),
            "301 It redirects to 'https://x.example/'",
        ),
        (
            refuse(404, {"message": "no route"}),
            "404 This answer is not the API's: is the URL right",
        ),
    ],
)
def test_refusal_by_another_service_says_what_to_look_at(server, call, fault, words):
    server.faults = [fault]
    with pytest.raises(imgo_client.ApiError, match=words):
        call("push", 1, key="u1")
