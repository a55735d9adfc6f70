"""The dashboard's tail: what it shows, to whom, and how much at once."""

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client

from push.accept.accept import Push, accept_push
from push.dashboard import tail
from push.models import SessionRecord
from push.session.session_records import Row, SessionEvent


@pytest.fixture
def browser(db) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    return client


def event(at: float, **more: object) -> SessionEvent:
    return SessionEvent(at, "node-1", "tcp", "192.0.2.1", **more)


def test_tail_data_has_latest_pushes_and_session_events(browser):
    ids = [accept_push(Push(b"1", keys=("u1",)), "test") for _ in range(3)]
    opened, refused = event(10.0, session="s1"), event(30.0, code=4401, reason="no token")
    closed = event(20.0, session="s1", seconds=10.0)
    rows = [Row("u1", opened=opened, closed=closed), Row("u2", refused=refused)]
    SessionRecord.objects.write(rows)
    data = browser.get("/dashboard/tail/data").json()
    assert [push["id"] for push in data["pushes"]] == [str(one) for one in reversed(ids)]
    found = [(one["kind"], one["key"], one["why"]) for one in data["sessions"]]
    assert found == [
        ("refused", "u2", "4401 no token"),
        ("closed", "u1", "the client has gone"),
        ("opened", "u1", ""),
    ]
    assert len({one["id"] for one in data["sessions"]}) == 3


def test_tail_data_of_many_is_bounded(browser, monkeypatch):
    monkeypatch.setattr(tail, "PUSHES", 2)
    monkeypatch.setattr(tail, "SESSION_EVENTS", 3)
    for n in range(4):
        accept_push(Push(b"1", room=f"r{n}"), "test")
    SessionRecord.objects.write([Row(f"u{n}", opened=event(float(n))) for n in range(9)])
    data = browser.get("/dashboard/tail/data").json()
    assert [push["name"] for push in data["pushes"]] == ["r3", "r2"]
    assert data["is_full"] == 2
    assert len(data["sessions"]) == 3


def test_tail_for_who_is_no_operator_is_refused(client, db, django_user_model):
    assert client.get("/dashboard/tail/data").status_code == 401
    assert client.get("/dashboard/tail").status_code == 302
    client.force_login(django_user_model.objects.create_user("ann", is_staff=True))
    assert client.get("/dashboard/tail/data").status_code == 403
    assert client.get("/dashboard/tail").status_code == 403


def test_tail_data_without_database_is_a_problem(browser, monkeypatch):
    def fail(_limit: int) -> None:
        raise OperationalError("away")

    monkeypatch.setattr("push.status.snapshot.latest_pushes", fail)
    answer = browser.get("/dashboard/tail/data")
    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/problem+json"
