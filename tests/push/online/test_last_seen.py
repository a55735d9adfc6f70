"""When a key was last connected, by its records and its events."""

import time

import pytest
from django.utils import timezone

from push.models import OnlineState
from push.online import store
from push.online.last_seen import last_seen
from push.status import explain

from .conftest import event, events

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]

NOW = float(int(time.time()))


def test_key_with_a_session_is_seen_now():
    before = timezone.now()
    assert before <= last_seen({}, None, is_online=True) <= timezone.now()


def test_unknown_key_was_never_seen():
    assert last_seen({"refused": event(NOW)}, None, is_online=False) is None


def test_latest_of_records_and_events_counts():
    closed = event(NOW - 50)
    records = {"opened": event(NOW - 60), "closed": closed}
    assert last_seen(records, None, is_online=False) == closed.time
    lease = store.acquire("n1")
    last = events("a", at=NOW - 10)
    store.add(lease, events("a", at=NOW - 20))
    store.remove(lease, last)
    state = OnlineState.objects.get(pk="a")
    assert last_seen(records, state, is_online=False) == last["a"].time


def test_explain_has_the_last_event():
    store.add(store.acquire("n1"), events("a"))
    lines = explain.of_key("a", 1)
    assert any(line.startswith("Its last event is key.online, number ") for line in lines)
