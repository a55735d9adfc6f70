"""manage.py tail: each push once, also those that are committed late; nothing private unasked."""

import io
import json
import threading
from collections.abc import Iterator

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from offline.models import Message
from push.accept.accept import (
    Push,
    accept_push,
    push_to_all,
    push_to_key,
    push_to_keys,
    push_to_room,
)
from push.management.commands import tail as module
from tests import call_and_close, wait_until

SECRET = "nobody's business"


@pytest.mark.django_db
def test_a_line_for_each_push_without_its_body(run):
    ids = [
        push_to_key("u1", SECRET),
        push_to_keys([f"k{n}" for n in range(5)], SECRET, by="shop"),
        push_to_room("r1", SECRET),
        push_to_all(SECRET, op=1000),
    ]
    text = run("tail", "--since", "0", "--count", "4")
    lines = [line.split("  ", 1)[1] for line in text.splitlines()]
    assert lines == [
        f"{ids[0]}  key u1  stored  by python",
        f"{ids[1]}  keys k0, k1, k2 and 2 more  stored  by shop",
        f"{ids[2]}  room r1  live  by python",
        f"{ids[3]}  all  live  by python  op 1000",
    ]
    assert SECRET in run("tail", "--since", str(ids[2]), "--count", "1", "--bodies")


@pytest.mark.django_db
def test_filters(run, data):
    push_to_room("r1", 1)
    mine = push_to_keys(["a", "u1"], 1)
    push_to_key("u11", 1)
    room = push_to_room("r2", 1)
    key = json.loads(run("tail", "--since", "0", "--count", "1", "--json", "--key", "u1"))
    assert (key["id"], key["to"]) == (str(mine), {"keys": ["a", "u1"]})
    found = json.loads(run("tail", "--since", "0", "--count", "1", "--json", "--room", "r2"))
    assert (found["id"], found["to"]) == (str(room), {"room": "r2"})


@pytest.mark.django_db
def test_bodies_as_data(run):
    start = push_to_all({"n": [1]})
    push_to_all(b"\xff\x00")
    text = run("tail", "--since", str(start - 1), "--count", "2", "--json", "--bodies")
    first, second = map(json.loads, text.splitlines())
    assert first["body"] == {"n": [1]}
    assert (second["body_base64"], "body" in second) == ("/wA=", False)


@pytest.mark.django_db
@pytest.mark.parametrize("body", ["1e400", "9" * 5000, '{"a":\r\n "\u2028",\n\n"a": 2}'])
def test_json_that_python_cannot_read_stays_as_it_was_pushed_on_one_line(run, body):
    start = accept_push(Push(body.encode(), to_all=True))
    text = run("tail", "--since", str(start - 1), "--count", "1", "--json", "--bodies")
    (line,) = text.encode().splitlines()
    found = msgspec.json.decode(line, type=dict[str, msgspec.Raw])["body"]
    assert bytes(found) == b" ".join(body.encode().splitlines())


@pytest.mark.django_db
def test_a_body_does_not_command_the_terminal(run):
    start = push_to_all("\x9b31m red\u202e".encode())
    text = run("tail", "--since", str(start - 1), "--count", "1", "--bodies")
    assert "\\x9b31m red\\u202e" in text
    assert text[:-1].isprintable()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "arguments",
    [
        ["--key", ""],
        ["--since", "x"],
        ["--since", "-1"],
        ["--count", "-1"],
        ["--interval", "0"],
        ["--interval", "-1"],
        ["--interval", "nan"],
        ["--interval", "often"],
    ],
)
def test_wrong_options_are_one_line(run, arguments):
    with pytest.raises(CommandError):
        run("tail", *arguments)


@pytest.mark.django_db
def test_more_than_a_page_comes_in_order_and_once(run, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 3)
    ids = [push_to_all(n) for n in range(8)]
    text = run("tail", "--since", str(ids[0] - 1), "--count", "8", "--json")
    assert [int(json.loads(line)["id"]) for line in text.splitlines()] == ids


class Follower:
    """A `tail` of a thread."""

    def __init__(self, count: int) -> None:
        self.out = io.StringIO()
        self._thread = threading.Thread(target=call_and_close, args=(self._run, count))
        self._thread.start()

    def _run(self, count: int) -> None:
        options = {"count": count, "since": "0", "interval": 0.01, "json": True}
        call_command("tail", stdout=self.out, **options)

    def ids(self) -> list[int]:
        return [int(json.loads(line)["id"]) for line in self.out.getvalue().splitlines()]

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def follow(transactional_db) -> Iterator[type[Follower]]:
    yield Follower
    push_to_all("the end")  # lets a follower go that a failed test has left


def test_later_pushes_follow_and_one_that_commits_late_is_included(follow):
    first = push_to_all(1)
    with connection.cursor() as cursor:  # an id that is given, and not committed yet
        cursor.execute("SELECT nextval(pg_get_serial_sequence('offline_message', 'id'))")
        (late,) = cursor.fetchone()
    follower = follow(3)
    wait_until(lambda: follower.ids() == [first])
    last = push_to_all(2)
    wait_until(lambda: follower.ids() == [first, last])
    row = Message.objects.get(pk=first)
    row.pk = late
    row.save(force_insert=True)
    follower.join()
    assert follower.ids() == [first, last, late]
    assert first < late < last
