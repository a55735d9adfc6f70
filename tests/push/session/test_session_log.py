"""The last opening, refusal and closing of each key: written in batches, bounded, shown."""

import json
import logging

import pytest
from django.db import DatabaseError, connection

from push.models import SessionRecord
from push.registry.base import Entry
from push.session import session_log
from push.session.session_log import SessionLog, log_refusal
from push.session.session_records import Row, SessionEvent
from push.status import key_sessions
from push.wire import CloseCode
from tests import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

NOW = 1_795_000_000.0


def entry(key: str = "u1", number: int = 1, platform: str = "web") -> Entry:
    return Entry(f"node-{number}", key, "node", "websocket", "192.0.2.1", platform, NOW - 60)


def refusal(code: CloseCode = CloseCode.ROOM_FORBIDDEN) -> SessionEvent:
    return SessionEvent(0.0, "", "tcp", "192.0.2.2", code=int(code), reason=code.reason)


@pytest.fixture
def log() -> SessionLog:
    return SessionLog("web1:8000", lambda: NOW)


async def of(key: str) -> dict[str, SessionEvent]:
    return await in_thread(SessionRecord.objects.of, key)


async def test_records_keep_the_last_event_of_each_kind(log):
    log.opened(entry(number=1))
    log.refused("u1", refusal())
    await log.flush()
    log.closed(entry(number=1), CloseCode.SLOW_READER)
    log.opened(entry(number=2))
    await log.flush()
    found = await of("u1")
    assert (found["opened"].session, found["closed"].session) == ("node-2", "node-1")
    assert (found["closed"].code, found["closed"].seconds) == (4001, 60.0)
    assert (found["refused"].code, found["refused"].node) == (4506, "web1:8000")
    assert {event.at for event in found.values()} == {NOW}


async def test_records_of_many_keys_are_one_statement_a_batch(log, monkeypatch):
    sizes = []
    write = SessionRecord.objects.write

    def count_rows(rows):
        sizes.append(len(rows))
        write(rows)

    monkeypatch.setattr(SessionRecord.objects, "write", count_rows)
    for number in range(session_log.BATCH + 1):
        log.opened(entry(f"u{number}"))
    await log.flush()
    assert sizes == [session_log.BATCH, 1]


async def test_records_wait_while_the_database_fails_newest_first(log, monkeypatch):
    log.opened(entry(number=1))
    log.closed(entry(number=1), 0)

    def fail(rows):
        log.opened(entry(number=2))  # meanwhile
        raise DatabaseError("away")

    with monkeypatch.context() as patched:
        patched.setattr(SessionRecord.objects, "write", fail)
        with pytest.raises(DatabaseError):
            await log.flush()
    await log.flush()
    found = await of("u1")
    assert (found["opened"].session, found["closed"].session) == ("node-2", "node-1")


@pytest.mark.parametrize("name", ["opened", "refused", "closed"])
def test_record_that_comes_late_replaces_no_later_one(name):
    for at, code in ((200.0, 4504), (100.0, 4000), (300.0, 4001), (250.0, 4002)):
        event = SessionEvent(at, "web1", "tcp", "192.0.2.1", code=code)
        SessionRecord.objects.write([Row("u1", **{name: event})])
    assert SessionRecord.objects.of("u1")[name].code == 4001


async def test_records_that_wait_are_bounded_and_the_oldest_go(log, monkeypatch):
    monkeypatch.setattr(session_log, "KEYS_MAX", 2)
    for name in ("a", "b", "c"):
        log.opened(entry(name))
    await log.flush()
    assert [bool(await of(name)) for name in ("a", "b", "c")] == [False, True, True]


async def test_records_take_any_text_of_a_client(log):
    log.opened(entry(platform="a\0b\ud800\n" + "x" * 500))
    await log.flush()
    assert (await of("u1"))["opened"].platform.startswith("a?b??x")


def test_records_older_than_record_keep_are_pruned(settings):
    settings.IMGO = {"RECORD_KEEP": 86_400}
    rows = [("old", "now() - interval '2 days'"), ("new", "now()")]
    with connection.cursor() as cursor:
        for key, at in rows:
            cursor.execute(
                f"INSERT INTO push_sessionrecord (key, updated_at) VALUES ('{key}', {at})"
            )
    assert SessionRecord.objects.prune() == 1
    assert list(SessionRecord.objects.values_list("key", flat=True)) == ["new"]


async def test_explanation_says_when_and_why_sessions_ended(log):
    log.opened(entry())
    log.closed(entry(), CloseCode.HEARTBEAT_TIMEOUT)
    log.refused("u1", refusal())
    await log.flush()
    sentences = " ".join(await in_thread(key_sessions.recorded_events, "u1"))
    assert "Session node-1 was opened at" in sentences
    assert "after 60.0 s" in sentences
    assert "4002 no frame within the heartbeat timeout" in sentences
    assert "4506 not allowed in this room" in sentences
    (nothing,) = await in_thread(key_sessions.recorded_events, "u2")
    assert nothing == "No connection of this key in the last 24 h (RECORD_KEEP)."


def test_log_lines_have_fields_and_no_line_break(log, caplog):
    with caplog.at_level(logging.INFO, "imgo.session"):
        log.opened(entry("u\u2028x"))
        log.closed(entry(), 0)
        log_refusal("", refusal(CloseCode.HANDSHAKE_TIMEOUT))
    opened, closed, refused = caplog.records
    assert (opened.key, opened.session, opened.node) == ("u\u2028x", "node-1", "web1:8000")
    assert "closed after 60.0 s: 0 the client has gone" in closed.getMessage()
    assert refused.code == 4003
    assert not hasattr(refused, "key")
    assert all("\n" not in json.dumps(line.getMessage()) for line in caplog.records)
