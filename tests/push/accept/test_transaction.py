"""A commit whose answer is lost: what is known is said, and what is not known too."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from imgo_site.errors import OutcomeUnknown, Unavailable
from imgo_site.postgres import outcome
from offline.models import Message, Pending
from push.accept.accept import Push, accept_push, accept_pushes
from push.metrics import definitions as metrics
from tests import call_and_close, wait_until
from tests.silence import BOTH, FROM_SERVICE, TO_SERVICE, Proxy

pytestmark = pytest.mark.django_db(transaction=True)

BOUND = 12.0  # seconds; a busy machine's share included


def to(key: str, **fields) -> Push:
    return Push(b"{}", keys=(key,), **fields)


@contextmanager
def direct() -> Iterator[psycopg.Connection]:
    """A connection of its own to the test database, past every proxy."""
    known = connection.settings_dict
    with psycopg.connect(
        host=known["HOST"],
        port=known["PORT"],
        user=known["USER"],
        password=known["PASSWORD"],
        dbname=known["NAME"],
        autocommit=True,
    ) as own:
        yield own


@pytest.fixture
def postgres() -> Iterator[psycopg.Connection]:
    with direct() as own:
        yield own


@pytest.fixture
def proxy(transactional_db, monkeypatch) -> Iterator[Proxy]:
    """Stands between this process and Postgres."""
    known = connection.settings_dict
    connection.close()
    connection.close_pool()
    with Proxy(known["HOST"], int(known["PORT"])) as found, monkeypatch.context() as patch:
        patch.setitem(known, "HOST", "127.0.0.1")
        patch.setitem(known, "PORT", str(found.port))
        yield found
        found.restore()
        connection.close()
        connection.close_pool()
    connection.close()


@pytest.fixture
def no_standby(postgres) -> Iterator[None]:
    """Every commit waits for a standby that does not exist."""
    postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    postgres.execute("SELECT pg_reload_conf()")
    wait_until(lambda: commit_waits(postgres))
    yield
    postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
    postgres.execute("SELECT pg_reload_conf()")


def commit_waits(postgres: psycopg.Connection) -> bool:
    """Whether a commit waits for a standby: Postgres takes up the setting some time later."""
    with direct() as own:
        pid = own.info.backend_pid
        commit = threading.Thread(target=commit_something, args=(own,))
        commit.start()
        waits = "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = %s"
        wait_until(
            lambda: not commit.is_alive() or postgres.execute(waits, [pid]).fetchone() == (True,)
        )
        does_wait = commit.is_alive()
        postgres.execute("SELECT pg_cancel_backend(%s)", [pid])
        commit.join()
    return does_wait


def commit_something(own: psycopg.Connection) -> None:
    """Commit what Postgres must write."""
    own.execute("SELECT pg_logical_emit_message(true, 'tests', 'committed')")


def waiting_commits(postgres: psycopg.Connection) -> list[int]:
    """The backends of this test's database whose commits wait for a standby."""
    rows = postgres.execute(
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'"
        " AND datname = current_database()"
    )
    return [pid for (pid,) in rows.fetchall()]


def while_committing(push: Push, act: Callable[[], None]) -> int | Exception:
    """What a push ends with when `act` happens on another thread."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        return accept_push(push)
    except (OutcomeUnknown, Unavailable) as error:
        return error
    finally:
        thread.join()


def lost(kind: str) -> float:
    return metrics.LOST_COMMITS.labels(kind)._value.get()


def test_commit_of_a_terminated_backend_is_found_to_be_accepted(postgres, no_standby):
    before = lost("committed")

    def terminate() -> None:
        with direct() as own:
            wait_until(lambda: waiting_commits(own))
            for pid in waiting_commits(own):
                own.execute("SELECT pg_terminate_backend(%s)", [pid])

    found = while_committing(to("a"), terminate)
    assert found == Message.objects.get().pk
    assert Pending.objects.get().message_id == found
    assert lost("committed") == before + 1


@pytest.mark.parametrize("dedupe_id", ["", "once"])
def test_commit_still_in_progress_is_answered_unknown(postgres, no_standby, imgo, dedupe_id):
    imgo(DATABASE_TIMEOUT=1.0)
    connection.ensure_connection()
    backend = connection.connection.info.backend_pid
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown) as raised:
        accept_push(to("a", dedupe_id=dedupe_id))
    assert time.monotonic() - began < BOUND
    assert raised.value.retry is bool(dedupe_id)
    # The abandoned commit goes on waiting: it is made when there is a standby again.
    assert backend in waiting_commits(postgres)
    assert not Message.objects.exists()
    postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
    postgres.execute("SELECT pg_reload_conf()")
    wait_until(lambda: Message.objects.count() == 1)


def test_retry_of_an_unknown_push_with_a_dedupe_id_is_one_push(postgres, no_standby, imgo):
    imgo(DATABASE_TIMEOUT=1.0)
    with pytest.raises(OutcomeUnknown):
        accept_push(to("a", dedupe_id="once"))
    with pytest.raises(Unavailable, match="nothing was accepted"):
        accept_push(to("a", dedupe_id="once"))  # waits for the first one
    postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
    postgres.execute("SELECT pg_reload_conf()")
    wait_until(lambda: Message.objects.count() == 1)
    assert accept_push(to("a", dedupe_id="once")) == Message.objects.get().pk


def test_commit_whose_answer_is_cut_off_is_found_to_be_accepted(proxy):
    accept_push(to("warm"))
    raw = connection.connection
    commit = raw.commit

    def cut() -> None:
        proxy.silence(FROM_SERVICE)
        threading.Timer(0.3, lambda: (proxy.cut(), proxy.restore())).start()
        commit()

    raw.commit = cut
    found = accept_push(to("a"))
    assert sorted(Pending.objects.values_list("message_id", "key"))[-1] == (found, "a")


def test_commit_that_never_left_is_answered_as_nothing_accepted(proxy):
    accept_push(to("warm"))
    raw = connection.connection
    commit = raw.commit

    def cut() -> None:
        proxy.cut()
        commit()

    raw.commit = cut
    before = lost("aborted")
    with pytest.raises(Unavailable, match="nothing was accepted"):
        accept_push(to("a"))
    assert lost("aborted") == before + 1
    assert list(Pending.objects.values_list("key", flat=True)) == ["warm"]


def test_lost_commit_of_another_server_than_the_known_one_is_unknown(proxy, postgres):
    """A pooler can lead the same connection to another server, after a failover for example."""
    accept_push(to("warm"))
    raw = connection.connection
    system, timeline = postgres.execute(outcome.SERVER).fetchone()
    assert raw.server == (system, timeline)
    raw.server = (system, "00000009")
    commit = raw.commit

    def cut() -> None:
        proxy.cut()
        commit()

    raw.commit = cut
    with pytest.raises(OutcomeUnknown):
        accept_push(to("a"))


def test_connection_cut_before_the_commit_is_replaced_unnoticed(proxy):
    for key in ("a", "b"):
        accept_push(to(key))
        proxy.cut()
    accept_pushes([to("c", dedupe_id="c"), to("d")])
    assert sorted(Pending.objects.values_list("key", flat=True)) == ["a", "b", "c", "d"]


def test_silent_postgres_is_answered_in_bounded_time(proxy, imgo):
    imgo(DATABASE_TIMEOUT=1.0)
    accept_push(to("warm"))
    with proxy.silent(*BOTH):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            accept_push(to("a"))
        assert time.monotonic() - began < BOUND
    proxy.cut()
    began = time.monotonic()
    wait_until(lambda: _accepts("b"))
    assert time.monotonic() - began < 10
    assert sorted(Pending.objects.values_list("key", flat=True)) == ["b", "warm"]


def _accepts(key: str) -> bool:
    try:
        return bool(accept_push(to(key)))
    except Unavailable:
        return False


def test_locked_table_is_answered_in_bounded_time(postgres, imgo):
    imgo(DATABASE_TIMEOUT=1.0)
    with postgres.transaction():
        postgres.execute("LOCK TABLE offline_message IN EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="nothing was accepted"):
            accept_push(to("a"))
        assert time.monotonic() - began < BOUND
    assert accept_push(to("b")) == Message.objects.get().pk


@contextmanager
def refusing_messages(postgres: psycopg.Connection, when: str) -> Iterator[None]:
    """Postgres refuses each message: `when` it is stored, or when it is committed."""
    postgres.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused by a trigger' USING ERRCODE = '40001'; END $$"
    )
    is_late = when == "committed"
    postgres.execute(
        f"CREATE {'CONSTRAINT' if is_late else ''} TRIGGER refuse AFTER INSERT ON offline_message"
        f" {'DEFERRABLE INITIALLY DEFERRED' if is_late else ''}"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        yield
    finally:
        postgres.execute("DROP FUNCTION refuse() CASCADE")


def test_commit_refused_by_the_server_is_nothing_accepted(postgres):
    with (
        refusing_messages(postgres, "committed"),
        pytest.raises(Unavailable, match="nothing was accepted"),
    ):
        accept_push(to("a"))
    assert not Message.objects.exists()


def test_push_inside_a_transaction_is_decided_by_that(proxy):
    @transaction.atomic
    def push_and_lose_the_connection() -> None:
        accept_push(to("a"))
        proxy.cut()

    with pytest.raises(OperationalError):
        push_and_lose_the_connection()
    with transaction.atomic():
        accept_push(to("b"))
    assert list(Pending.objects.values_list("key", flat=True)) == ["b"]


def test_failed_push_inside_a_transaction_rolls_that_back(postgres):
    with postgres.transaction():
        postgres.execute("LOCK TABLE push_dedupe IN EXCLUSIVE MODE")
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = '100ms'")
            with pytest.raises(Unavailable):
                accept_push(to("a", dedupe_id="x"))
            assert connection.needs_rollback
    assert not Message.objects.exists()


@pytest.mark.parametrize("pushes", [[to("a")], [to("a", dedupe_id="x"), to("b", dedupe_id="y")]])
def test_push_takes_two_round_trips(proxy, pushes):
    accept_push(to("warm"))
    counted = sum(link.pieces[TO_SERVICE] for link in proxy.links)
    accept_pushes(pushes)
    assert sum(link.pieces[TO_SERVICE] for link in proxy.links) - counted == 2


@pytest.mark.long
def test_ids_of_another_server_or_timeline_prove_nothing(postgres):
    accept_push(to("a"))
    xid = postgres.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
    real = outcome.Trace(xid, *postgres.execute(outcome.SERVER).fetchone())
    missing = "SELECT 1 WHERE false"
    assert outcome.find_out(real, "SELECT 1", []) is outcome.Outcome.COMMITTED
    for system, timeline in ((real.system + 1, real.timeline), (real.system, "00000009")):
        trace = outcome.Trace(real.xid, system, timeline)
        assert outcome.find_out(trace, missing, []) is outcome.Outcome.UNKNOWN
    future = outcome.Trace(str(int(real.xid) + 10**6), real.system, real.timeline)
    assert outcome.find_out(future, missing, []) is outcome.Outcome.UNKNOWN


def test_thread_without_a_limit_has_none_after_a_push():
    call_and_close(accept_push, to("a"))
    accept_push(to("b"))
    assert connection.connection.limit is None


def test_interrupted_commit_leaves_nothing_for_the_next_push_to_commit(monkeypatch):
    accept_push(to("warm"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection.connection, "commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            accept_push(to("a"))
    accept_push(to("b"))
    assert sorted(Pending.objects.values_list("key", flat=True)) == ["b", "warm"]


def test_failed_rollback_does_not_hide_why_the_push_failed(postgres, proxy, monkeypatch):
    accept_push(to("warm"))
    raw = connection.connection
    rollback = raw.rollback

    def cut() -> None:
        proxy.cut()
        rollback()

    monkeypatch.setattr(raw, "rollback", cut)
    with refusing_messages(postgres, "stored"):
        with pytest.raises(Unavailable) as raised:
            accept_push(to("a"))
        assert "refused by a trigger" in str(raised.value.__cause__)
        assert connection.connection is None
    accept_push(to("b"))
    assert sorted(Pending.objects.values_list("key", flat=True)) == ["b", "warm"]


@contextmanager
def found_at(*ports: int) -> Iterator[Callable[[], outcome.Outcome]]:
    """Find out about a transaction that has committed: each attempt goes to the next port."""
    known = connection.get_connection_params()
    options = iter([{**known, "port": port} for port in ports])
    with direct() as own, pytest.MonkeyPatch.context() as patch:
        xid = own.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
        trace = outcome.Trace(xid, *own.execute(outcome.SERVER).fetchone())
        attempt = SimpleNamespace(get_connection_params=lambda: next(options))
        patch.setattr(outcome, "connection", attempt)
        patch.setattr(outcome, "PAUSE", 0.0)
        yield lambda: outcome.find_out(trace, "SELECT 1", [])
    assert next(options, None) is None  # there was an attempt at each port


def test_outcome_is_queried_again_after_a_connection_was_refused(closed_port):
    with found_at(closed_port, connection.settings_dict["PORT"]) as find:
        assert find() is outcome.Outcome.COMMITTED


def test_outcome_is_unknown_if_postgres_refuses_until_the_deadline(closed_port, monkeypatch):
    monkeypatch.setattr(outcome, "FIND_TIMEOUT", 0.0)
    with found_at(closed_port) as find:
        assert find() is outcome.Outcome.UNKNOWN
