"""The API of rooms with history: position, kept messages, emptying."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from offline import outbox_queue
from offline.models import Stream
from offline.sql import postgres
from push import fanout
from push.accept.accept import Push, push_to_room
from push.fanout import drain
from push.status import explain
from tests import call_and_close, wait_until
from tests.push.api.test_v1 import check_problem

PATIENCE = 10.0  # seconds

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _policies(imgo, redis_client):
    imgo(ROOMS={"chat-*": {"history": 10}, "a/*": {"history": 10}}, PARTITIONS=1)


def publish(room: str, *bodies, **options) -> None:
    for body in bodies:
        push_to_room(room, body, **options)
    drain(0)


def read(api, room: str = "chat-1", **query) -> dict:
    answer = api.get(f"/api/v1/rooms/{room}/messages", query)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_position_of_a_room_is_that_of_its_newest_message(api):
    before = api.get("/api/v1/rooms/chat-1/position").json()
    assert read(api)["epoch"] == before["epoch"]
    assert not Stream.objects.exists()
    publish("chat-1", 1, 2)
    after = api.get("/api/v1/rooms/chat-1/position").json()
    assert before == {"room": "chat-1", "epoch": after["epoch"], "offset": 0}
    assert after["offset"] == 2


def test_explanation_of_a_kept_message_has_its_offset(imgo):
    publish("chat-1", "first", "second")
    third = push_to_room("chat-1", "third")
    assert "It has no offset yet." in " ".join(explain.of_message("u1", third))
    drain(0)
    assert "The room keeps it, with the offset 3:" in " ".join(explain.of_message("u1", third))
    imgo(ROOMS={}, PARTITIONS=1)
    assert "does not any more" in " ".join(explain.of_message("u1", third))
    live = push_to_room("lobby", "live")
    assert "The room" not in " ".join(explain.of_message("u1", live))


def test_messages_come_as_they_were_pushed_newest_first(api):
    publish("chat-1", {"n": 1.50}, b"no JSON", 3)
    page = read(api)
    assert [row["offset"] for row in page["messages"]] == [3, 2, 1]
    assert [row["body"] for row in page["messages"]] == [3, "no JSON", {"n": 1.5}]
    assert (page["offset"], page["more"]) == (3, False)


@pytest.mark.parametrize(
    ("query", "offsets", "more"),
    [
        ({"limit": 2}, [5, 4], True),
        ({"since": 2}, [3, 4, 5], False),
        ({"since": 1, "before": 4, "limit": 1}, [2], True),
        ({"before": 3}, [2, 1], False),
        ({"order": "oldest", "limit": 2}, [1, 2], True),
    ],
)
def test_messages_are_paged_by_offset(api, query, offsets, more):
    publish("chat-1", *range(5))
    page = read(api, **query)
    assert ([row["offset"] for row in page["messages"]], page["more"]) == (offsets, more)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "since=-1", "before=x", "order=up"])
def test_query_that_makes_no_sense_is_a_problem(api, query):
    answer = api.get(f"/api/v1/rooms/chat-1/messages?{query}")
    assert check_problem(answer, 400, "bad_request").startswith(query.partition("=")[0])


def test_room_without_history_has_no_position_and_no_messages(api):
    for path in ("position", "messages"):
        answer = api.get(f"/api/v1/rooms/lobby/{path}")
        assert "ROOMS" in check_problem(answer, 404, "not_found")


def test_emptied_room_keeps_its_position(api):
    publish("chat-1", 1, 2)
    answer = api.delete("/api/v1/rooms/chat-1/messages")
    assert (answer.status_code, answer.json()) == (200, {"room": "chat-1", "deleted": 2})
    assert read(api)["messages"] == []
    publish("chat-1", 3)
    assert [row["offset"] for row in read(api)["messages"]] == [3]


def test_emptying_waits_for_messages_that_are_being_sent(api, monkeypatch):
    """Sessions have received them by then, and they must not come back from the history."""
    published, may_end, real_publish = threading.Event(), threading.Event(), fanout.publish

    def publish_slowly(envelopes) -> None:
        real_publish(envelopes)
        if envelopes:
            published.set()
            assert may_end.wait(PATIENCE)

    monkeypatch.setattr(fanout, "publish", publish_slowly)
    push_to_room("chat-1", 1)
    push_to_room("chat-1", 2)
    with ThreadPoolExecutor(2) as threads:
        draining = threads.submit(call_and_close, drain, 0)
        try:
            assert published.wait(PATIENCE)
            path = "/api/v1/rooms/chat-1/messages"
            emptying = threads.submit(call_and_close, api.delete, path)
            wait_until(lambda: emptying.done() or waits_for_partition(), PATIENCE)
        finally:
            may_end.set()
        assert draining.result(PATIENCE) == 2
        assert emptying.result(PATIENCE).json() == {"room": "chat-1", "deleted": 2}
    assert read(api)["messages"] == []


def waits_for_partition() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted"
        )
        return cursor.fetchone() is not None


def test_emptying_a_room_whose_sending_hangs_is_refused(api, monkeypatch):
    monkeypatch.setattr(postgres, "LOCK_WAIT", 1)
    publish("chat-1", 1)
    has, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        with outbox_queue.draining(0, wait=False):
            has.set()
            assert may_end.wait(PATIENCE)

    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(call_and_close, hang)
        try:
            assert has.wait(PATIENCE)
            answer = api.delete("/api/v1/rooms/chat-1/messages")
            check_problem(answer, 503, "unavailable")
        finally:
            may_end.set()
        hanging.result(PATIENCE)
    assert [row["offset"] for row in read(api)["messages"]] == [1]


def test_only_an_admin_may_empty_a_room(caller):
    answer = caller("read", "push").delete("/api/v1/rooms/chat-1/messages")
    check_problem(answer, 403, "forbidden")


def test_rooms_with_slashes_have_history_too(api):
    publish("a/b/messages", 1)
    assert read(api, "a/b/messages")["room"] == "a/b/messages"
    answer = api.get("/api/v1/rooms", {"room": "a/b/messages"})
    check_problem(answer, 404, "not_found")  # nobody is in it


def test_message_that_is_not_to_be_stored_is_not_kept(api):
    publish("chat-1", 1)
    publish("chat-1", "typing", store=False)
    assert [row["body"] for row in read(api)["messages"]] == [1]


def test_page_ends_early_above_its_bytes(api, monkeypatch):
    monkeypatch.setattr("push.api.rooms.HISTORY_BYTES", 250)
    publish("chat-1", *["x" * 100] * 5)
    page = read(api)
    assert ([row["offset"] for row in page["messages"]], page["more"]) == ([5, 4], True)


def test_a_room_push_is_stored_only_where_rooms_have_history(imgo):
    assert Push(b"1", room="chat-1").is_stored
    assert not Push(b"1", room="lobby").is_stored
    assert not Push(b"1", room="chat-1", store=False).is_stored
