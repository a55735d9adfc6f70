"""Pushes as a stream: one answer a line, in order, groups by what has come, whatever goes wrong."""

import io
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from django.test import RequestFactory

from imgo_site.wsgi import application
from offline.models import Message, Outbox, Pending, ScheduledPush
from offline.partitions import partition_of
from push.accept.accept import Push, accept_pushes
from push.api import push_stream

PATH = "/api/v1/pushes/stream"
pytestmark = pytest.mark.django_db(transaction=True)


def line(key: str = "u1", **more) -> bytes:
    return json.dumps({"to": {"key": key}, "body": 1, **more}).encode() + b"\n"


class Feed:
    """A request body that is still being sent: a line is there when it has been put."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes | Exception] = queue.Queue()

    def put(self, piece: bytes | Exception) -> None:
        self._pieces.put(piece)

    def readline(self, limit: int = -1) -> bytes:
        piece = self._pieces.get(timeout=10)
        if isinstance(piece, Exception):
            raise piece
        return piece

    read = readline


@pytest.fixture(autouse=True)
def _key(imgo) -> None:
    imgo(API_KEY="bootstrap")


class Asked:
    """A request to a WSGI server; the answer comes while the body is still being read."""

    def __init__(self, source: Any, key: str) -> None:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ |= {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": PATH,
            "HTTP_HOST": "testserver",
            "HTTP_AUTHORIZATION": key,
            "wsgi.input": source,
        }
        self._answer = application(environ, self._start)
        self._pieces = iter(self._answer)

    def _start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        self.status, self.headers = int(status[:3]), dict(headers)

    def next(self) -> list[dict[str, Any]]:
        """The answers that come next, together."""
        return [json.loads(one) for one in next(self._pieces).splitlines()]

    def rest(self) -> list[dict[str, Any]]:
        """All answers to the end."""
        return [json.loads(one) for one in b"".join(self._pieces).splitlines()]

    def close(self) -> None:
        """As a WSGI server does when the client has gone, or when all is sent."""
        self._answer.close()


@pytest.fixture
def ask() -> Iterator[Callable[..., Asked]]:
    asked: list[Asked] = []

    def one(source: Any, key: str = "Api-Key bootstrap") -> Asked:
        asked.append(Asked(source, key))
        return asked[-1]

    yield one
    for request in asked:
        request.close()


@pytest.fixture
def post(ask) -> Callable[[bytes], list[dict[str, Any]]]:
    """The answers to a whole body."""
    return lambda data: ask(io.BytesIO(data)).rest()


def test_every_line_is_answered_in_order(post, queued):
    found = post(b"".join(line(f"u{n}") for n in range(5)))
    ids = list(Message.objects.order_by("pk").values_list("pk", flat=True))
    assert found == [{"id": str(one)} for one in ids]
    assert queued() == {partition_of(f"u{n}", 4) for n in range(5)}
    assert set(Message.objects.values_list("by", flat=True)) == {"IMGO_API_KEY"}


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\n\n \n"])
def test_the_last_line_needs_no_end_and_empty_ones_count_for_nothing(post, ending):
    assert len(post(b"\n" + line() + b"\r\n" + line().strip() + ending)) == 2


@pytest.mark.parametrize("data", [b"", b"\n", b"\n \n\n"])
def test_no_lines_are_no_answers(post, data):
    assert post(data) == []


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b"{}",
        b"\xff",
        b"7",
        b"[" * 5000,
        b'[{"to": {"key": "u1"}, "body": 1}]',
        b'{"to": {"key": ""}, "body": 1}',
        b'{"to": {"key": "u1"}, "body": "\xff"}',
        b'{"to": {"key": "u1"}, "body": 1, "op": 4}',
    ],
    ids=lambda bad: repr(bad)[:40],
)
def test_a_bad_line_is_a_problem_and_the_others_are_accepted(post, bad):
    first, problem, last = post(line() + bad + b"\n" + line())
    assert problem["error"]["code"] == "bad_request"
    assert first.keys() == last.keys() == {"id"}
    assert Pending.objects.count() == 2


def test_a_body_above_its_limit_is_a_problem(post, imgo):
    imgo(MAX_BODY=10)
    first, problem, last = post(line() + line(body="x" * 11) + line())
    assert problem["error"]["code"] == "too_large"
    assert first.keys() == last.keys() == {"id"}


def test_a_line_without_end_ends_the_stream(post, imgo):
    imgo(MAX_BODY=10)
    endless = b'{"to": ' + b" " * 10 * (push_stream.LINE_EXTRA + 10)
    found = post(line() + endless + b"\n" + line())
    assert [list(one) for one in found] == [["id"], ["error"]]
    assert found[1]["error"]["code"] == "too_large"


def test_a_repeated_dedupe_id_has_the_first_id(post):
    found = post(line(dedupe_id="d") + line(dedupe_id="e") + line(dedupe_id="d"))
    assert found[0] == found[2] != found[1]
    assert Message.objects.count() == 2


def test_a_line_is_answered_while_the_stream_is_open(ask):
    feed = Feed()
    feed.put(line())
    request = ask(feed)
    assert request.status == 200
    for n in range(3):
        (answer,) = request.next()
        assert answer == {"id": str(Message.objects.latest("pk").pk)}
        if n < 2:
            feed.put(line())
    feed.put(b"")
    assert request.rest() == []


def test_a_fast_feeder_is_answered_in_groups(post, monkeypatch):
    groups = []

    def accept(pushes: list[Push], by: str) -> list[int]:
        groups.append(len(pushes))
        return accept_pushes(pushes, by)

    monkeypatch.setattr(push_stream, "GROUP_MAX", 50)
    monkeypatch.setattr(push_stream, "accept_pushes", accept)
    found = post(b"".join(line(f"u{n}") for n in range(120)))
    assert len(found) == 120
    assert sum(groups) == 120
    assert 3 <= len(groups) < 120
    assert max(groups) <= 50


def test_a_feeder_that_breaks_off_has_what_was_answered(ask, caplog):
    feed = Feed()
    feed.put(line())
    feed.put(OSError("reset"))
    assert len(ask(feed).rest()) == 1
    assert Message.objects.count() == 1
    assert not any(record.exc_info for record in caplog.records)


def test_half_a_line_of_a_feeder_that_breaks_off_is_no_push(ask):
    feed = Feed()
    feed.put(line() + line()[:-5])
    feed.put(OSError("reset"))
    assert len(ask(feed).rest()) == 1


def test_who_does_not_take_the_answers_lets_the_reader_end(ask, monkeypatch):
    monkeypatch.setattr(push_stream, "BUFFERED_MAX", 2)
    monkeypatch.setattr(push_stream, "GROUP_MAX", 2)
    before = set(threading.enumerate())
    request = ask(io.BytesIO(line() * 100))
    request.next()
    (reader,) = (t for t in set(threading.enumerate()) - before if t.name == "imgo-stream")
    request.close()
    reader.join(10)
    assert not reader.is_alive()


def test_without_the_database_each_line_is_unavailable(database_down, post):
    found = post(line() + b"{}\n" + line())
    assert [one["error"]["code"] for one in found] == ["unavailable", "bad_request", "unavailable"]
    assert [one["error"]["retry"] for one in found] == [True, False, True]


@pytest.mark.parametrize("push", [line(), b'{"to": {"room": "r"}, "body": 1}'])
def test_without_the_broker_pushes_are_accepted_and_wait(broker_down, post, push):
    assert post(push) == [{"id": str(Outbox.objects.get().message_id)}]


def test_the_answer_is_not_kept_by_a_proxy(ask):
    request = ask(io.BytesIO(line()))
    assert request.headers["Content-Type"] == "application/x-ndjson"
    assert request.headers["X-Accel-Buffering"] == "no"
    assert len(request.rest()) == 1


@pytest.mark.parametrize("key", ["", "Api-Key wrong"])
def test_nobody_can_stream_without_a_key(ask, key):
    assert ask(io.BytesIO(line()), key).status == 401
    assert not Message.objects.exists()


class Parser:
    """What gunicorn's body object has inside: pieces that know nothing of lines."""

    def __init__(self, data: bytes, size: int) -> None:
        self.parser = iter([data[n : n + size] for n in range(0, len(data), size)])


class Body(io.BytesIO):
    reader: Parser


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_pieces_may_be_cut_anywhere(ask, size):
    body = Body(b"not read this way")
    body.reader = Parser(line("ä") * 5, size)
    assert len(ask(body).rest()) == 5
    assert set(Pending.objects.values_list("key", flat=True)) == {"ä"}


def test_a_request_without_a_wsgi_server_is_read_as_a_whole():
    """Under Daphne the request is the file."""
    request = RequestFactory().post(PATH, line() * 3, content_type="application/x-ndjson")
    assert b"".join(push_stream.pieces(request)) == line() * 3


@pytest.mark.parametrize(
    ("setting", "sent"),
    [("STREAM_LINE_TIMEOUT", b'{"to": '), ("STREAM_IDLE_TIMEOUT", b"")],
)
def test_stream_that_stands_still_is_ended(imgo, monkeypatch, ask, setting, sent):
    monkeypatch.setattr(push_stream, "LOOK_EVERY", 0.05)
    imgo(**{setting: 0.2})
    feed = Feed()
    feed.put(line() + sent)
    asked = ask(feed)
    answers = asked.rest()
    assert "id" in answers[0]
    assert (answers[1]["error"]["code"], len(answers)) == ("request_timeout", 2)
    assert ("line" in answers[1]["error"]["detail"]) == bool(sent)
    feed.put(b"")


def test_line_with_a_time_is_scheduled(post):
    one, two = post(line(send_at=60) + line())
    assert ScheduledPush.objects.get().pk == int(one["id"])
    assert Message.objects.get().pk == int(two["id"])
