"""Changes of online keys in the database: which of them are events, with which numbers."""

import time

import pytest
from django.db import connection

from push.models import OnlineKey, OnlineNode, OnlineState, SessionRecord
from push.online import statements, store
from push.online.events import NODE_LOST
from push.online.store import LeaseLost
from push.online.tables import KEEP
from push.session.session_records import Row
from push.signals import key_offline, key_online
from push.webhooks.endpoints import ROOM_MARK
from push.webhooks.tables import WebhookEvent
from tests.push.webhooks.conftest import entry

from .conftest import data, event, events, stored

pytestmark = [pytest.mark.django_db, pytest.mark.any_database, pytest.mark.usefixtures("hooked")]


@pytest.fixture
def one() -> str:
    return store.acquire("n1")


@pytest.fixture
def two() -> str:
    return store.acquire("n2")


def numbers(key: str) -> list[int]:
    return [row["number"] for row in data() if row["key"] == key]


def finish(lease: str) -> None:
    """Remove all keys of a lease, and the lease."""
    while store.reap(lease):
        pass


def test_first_insert_and_last_delete_are_events_with_following_numbers(one, two):
    store.add(one, events("a", "b"))
    store.add(two, events("a"))
    store.remove(one, events("a", "b"))
    store.remove(two, events("a"))
    store.add(one, events("a"))
    assert stored() == [
        ("key.online", "a"), ("key.online", "b"), ("key.offline", "b"), ("key.offline", "a"),
        ("key.online", "a"),
    ]  # fmt: skip
    first, *rest = numbers("a")
    assert rest == [first + 1, first + 2]
    assert abs(first - 1_000 * time.time()) < 5_000
    assert OnlineState.objects.get(pk="a").is_online
    assert not OnlineState.objects.get(pk="b").is_online


def test_rooms_have_events_of_their_own_numbered_as_those_of_keys(one, two, imgo):
    imgo(WEBHOOKS=[entry(events=["*"], keys=["a"])], EVENT_KEYS=["*"])
    room = ROOM_MARK + "r" * 255
    heard: list[str] = []

    def note(key: str, **_: object) -> None:
        heard.append(key)

    key_online.connect(note)
    try:
        store.add(one, events("a", room))
    finally:
        key_online.disconnect(note)
    store.add(two, events(room))
    store.remove(one, events(room))
    store.remove(two, events(room))
    assert stored() == [("key.online", "a"), ("room.occupied", room), ("room.vacated", room)]
    (_, first, last) = data()
    assert first == {"room": "r" * 255, "number": first["number"]}
    assert last == {"room": "r" * 255, "number": first["number"] + 1}
    assert heard == ["a"]


def test_room_of_a_lost_node_is_vacated_once(one, imgo):
    rooms = entry(events=["room.occupied", "room.vacated"], rooms=["r*"])
    imgo(WEBHOOKS=[rooms], EVENT_ROOMS=["*"])
    store.add(one, events(ROOM_MARK + "other"))
    store.add(one, events(ROOM_MARK + "r"))
    store.end([one])
    finish(one)
    assert [kind for kind, _ in stored()] == ["room.occupied", "room.vacated"]


def test_repeated_changes_cause_no_event(one):
    for _ in range(2):
        store.add(one, events("a"))
    for _ in range(2):
        store.remove(one, events("a"))
    store.remove(one, events("never-there"))
    assert stored() == [("key.online", "a"), ("key.offline", "a")]


def test_event_has_the_facts_and_the_time_of_its_session(one):
    at = float(int(time.time()) - 5)
    store.add(one, {"a": event(at, "s1", platform="web")})
    store.remove(one, {"a": event(at + 2.5, "s1", code=4000, reason="bye", seconds=2.5)})
    opening, end = data()
    number = opening.pop("number")
    common = {
        "key": "a", "node": "n1", "transport": "websocket", "address": "192.0.2.1",
        "session": "s1",
    }  # fmt: skip
    assert opening == {**common, "platform": "web"}
    more = {"number": number + 1, "code": 4000, "reason": "bye", "seconds": 2.5}
    assert end == {**common, **more}
    times = [row.at.timestamp() for row in WebhookEvent.objects.order_by("pk")]
    assert times == [at, at + 2.5]


def test_times_of_a_key_never_go_back(one, two):
    now = time.time()
    store.add(one, events("a", at=now))
    store.remove(one, events("a", at=now - 100))
    store.add(two, events("a", at=now - 200))
    times = [row.at for row in WebhookEvent.objects.order_by("pk")]
    assert times == sorted(times)


def test_lost_lease_writes_nothing(one):
    store.add(one, events("a"))
    store.end([one])
    for change in (store.add, store.remove):
        with pytest.raises(LeaseLost):
            change(one, events("a", "b"))
    with pytest.raises(LeaseLost):
        store.beat(one)
    with pytest.raises(LeaseLost):
        store.add("unknown", events("a"))
    assert stored() == [("key.online", "a")]


def test_lease_of_another_database_is_lost(one):
    OnlineNode.objects.update(cluster="before the failover")
    with pytest.raises(LeaseLost):
        store.beat(one)
    with pytest.raises(LeaseLost):
        store.add(one, events("a"))


def test_numbers_go_on_above_those_that_a_failover_may_have_lost(one):
    store.add(one, events("a"))
    OnlineState.objects.update(cluster="before the failover")
    store.remove(one, events("a"))
    store.add(one, events("a"))
    first, second, third = numbers("a")
    assert second == first + statements.NUMBERS_LOST_MAX
    assert third == second + 1


def test_only_a_lease_that_has_not_beaten_is_condemned(one):
    (lease,) = store.leases()
    store.beat(one)
    assert not store.condemn(lease)
    (lease,) = store.leases()
    assert store.condemn(lease)
    assert not store.condemn(lease)


def test_reaper_removes_keys_that_no_other_node_has(one, two):
    store.add(one, events("a", "b"))
    store.add(two, events("b"))
    assert store.reap(one) == 0  # it has not ended
    store.end([one])
    finish(one)
    assert stored()[2:] == [("key.offline", "a")]
    assert data()[2]["reason"] == NODE_LOST
    assert data()[2]["node"] == "n1"
    assert list(OnlineKey.objects.values_list("key", flat=True)) == ["b"]
    assert [lease.id for lease in store.leases()] == [two]


def test_reaper_of_a_stopped_node_reports_the_recorded_end_of_the_last_session(one):
    now = time.time()
    store.add(one, {"a": event(now - 9), "b": event(now - 9)})
    closed = event(now - 5, "s1", code=4000, reason="going away", seconds=4.0)
    before = event(now - 20, "s0", code=1)
    opened = event(now - 9, "s1")
    SessionRecord.objects.write([Row("a", opened, None, closed), Row("b", opened, None, before)])
    store.stop(one)
    store.end([one])
    finish(one)
    found = {row["key"]: row for row in data()[2:]}
    assert (found["a"]["code"], found["a"]["reason"]) == (4000, "going away")
    assert "code" not in found["b"]
    assert (found["b"]["reason"], found["b"]["session"]) == (NODE_LOST, "s1")


def test_reaper_of_a_lost_node_reports_the_loss_and_not_a_session_that_ended_before(one, two):
    """The second session of `a` is lost; `b` had one there that is not the last to have opened."""
    now = time.time()
    first, second = event(now - 900, "s1"), event(now - 800, "s2", node="n2", platform="web")
    ended = event(now - 700, "s1", code=4000, reason="going away", seconds=200.0)
    store.add(two, {"a": second, "b": event(now - 900, "s0", node="n2")})
    store.add(one, {"a": first, "b": first})
    store.remove(one, {"a": ended, "b": ended})
    SessionRecord.objects.write([Row("a", second, None, ended), Row("b", first, None, ended)])
    store.end([two])
    finish(two)
    found = {row["key"]: row for row in data()[2:]}
    assert {**found["a"], "number": 0} == {
        "key": "a", "number": 0, "reason": NODE_LOST,
        "node": "n2", "session": "s2", "transport": "websocket", "address": "192.0.2.1",
        "platform": "web",
    }  # fmt: skip
    assert {**found["b"], "number": 0} == {
        "key": "b", "number": 0, "reason": NODE_LOST, "node": "n2"
    }  # fmt: skip
    assert all(state.at.timestamp() >= now for state in OnlineState.objects.all())


def test_reaper_of_a_lost_node_does_not_name_a_session_that_had_ended_there(one):
    """Another session of the key there, which opened before, is lost."""
    now = time.time()
    opened, ended = event(now - 9, "s2"), event(now - 5, "s2", seconds=4.0)
    store.add(one, events("a", at=now - 20))
    SessionRecord.objects.write([Row("a", opened, None, ended)])
    store.end([one])
    finish(one)
    lost = data()[1]
    assert (lost["reason"], lost.get("session"), lost.get("seconds")) == (NODE_LOST, None, None)


def test_many_keys_are_reaped_in_batches(one, monkeypatch):
    monkeypatch.setattr(store, "BATCH", 3)
    store.add(one, events(*map(str, range(8))))
    store.end([one])
    assert [store.reap(one) for _ in range(4)] == [3, 3, 2, 0]
    assert OnlineState.objects.filter(is_online=False).count() == 8


def test_receivers_of_signals_get_each_event(one):
    heard = []

    def note(signal, **arguments) -> None:
        heard.append((signal, arguments["key"], arguments["number"], arguments["facts"]["node"]))

    key_online.connect(note)
    key_offline.connect(note)
    try:
        store.add(one, events("a"))
        store.remove(one, events("a"))
    finally:
        key_online.disconnect(note)
        key_offline.disconnect(note)
    first, second = numbers("a")
    assert heard == [(key_online, "a", first, "n1"), (key_offline, "a", second, "n1")]


def test_failing_receiver_loses_only_what_it_wrote(one, caplog):
    def fail(key: str, **_) -> None:
        SessionRecord.objects.write([Row(key)])
        if key == "a":
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")

    key_online.connect(fail)
    try:
        store.add(one, events("a", "b"))
    finally:
        key_online.disconnect(fail)
    assert stored() == [("key.online", "a"), ("key.online", "b")]
    assert list(SessionRecord.objects.values_list("key", flat=True)) == ["b"]
    assert "a receiver of key_online or key_offline failed" in caplog.text


def test_last_events_that_found_no_room_are_sent_later(one, imgo):
    store.add(one, events("a", "b"))
    imgo(WEBHOOKS_MAX=2)
    store.remove(one, events("a", "b"))
    store.add(one, events("b"))
    assert stored() == [("key.online", "a"), ("key.online", "b")]
    assert store.resend() == 0
    WebhookEvent.objects.filter(key="a").delete()
    assert store.resend() == 1
    WebhookEvent.objects.filter(key="b").delete()
    assert store.resend() == 1
    assert store.resend() == 0
    assert stored() == [("key.offline", "a"), ("key.online", "b")]
    states = OnlineState.objects.order_by("key")
    assert [row["number"] for row in data()] == [state.number for state in states]


def test_endpoint_gets_events_of_its_keys_only(one, imgo, settings):
    (only,) = settings.IMGO["WEBHOOKS"]
    imgo(WEBHOOKS=[{**only, "keys": ["user-*"], "events": ["key.offline"]}])
    store.add(one, events("user-1", "shop"))
    store.remove(one, events("user-1", "shop"))
    assert stored() == [("key.offline", "user-1")]


def test_states_of_keys_not_seen_for_long_are_pruned(one, monkeypatch):
    monkeypatch.setattr("push.online.tables.PRUNE_PAGE", 2)
    store.add(one, events("a", "b", "c", "d", at=time.time() - KEEP - 60))
    store.remove(one, events("b", "c", at=time.time() - KEEP - 60))
    store.remove(one, events("d"))
    last = OnlineState.objects.prune()
    while last:
        last = OnlineState.objects.prune(last)
    assert set(OnlineState.objects.values_list("key", flat=True)) == {"a", "d"}


def test_many_keys_are_written_with_few_statements(one, django_assert_max_num_queries):
    many = events(*(f"k{number}" for number in range(store.BATCH)))
    with django_assert_max_num_queries(15):
        store.add(one, many)
    with django_assert_max_num_queries(15):
        store.remove(one, many)
    assert OnlineState.objects.filter(is_online=False).count() == store.BATCH
