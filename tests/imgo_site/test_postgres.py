"""Connections to Postgres: one that is cut, silent or read-only costs one bounded failure."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from django.db import Error as DatabaseError
from django.db import connection

from imgo_site.postgres import connection as module
from imgo_site.postgres import outcome
from imgo_site.postgres.limits import LIMIT, limited
from imgo_site.postgres.pool import RETRY_MAX
from imgo_site.postgres.url import parse, parse_replica
from push.accept.accept import Push, accept_push
from push.fanout import drain
from tests import PATIENCE, wait_until
from tests.environment import services
from tests.services import Postgres
from tests.silence import Proxy

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("new_database_threads"),
]

RECOVERY = 10.0  # seconds, as promised
Write = Callable[[], bool]


@pytest.fixture
def through(transactional_db, monkeypatch) -> Iterator[Callable[..., None]]:
    """Leads Django's connections to other hosts and ports: `through("a,b", "1,2")`.

    `limit`: seconds for a connection and for a statement.
    """
    known = connection.settings_dict

    def start_anew() -> None:
        connection.close()
        connection.close_pool()

    with monkeypatch.context() as patch:

        def lead(host: str, port: str, limit: float = 1.0) -> None:
            start_anew()
            patch.setitem(known, "HOST", host)
            patch.setitem(known, "PORT", port)
            patch.setitem(known, LIMIT, limit)
            pool = {**known["OPTIONS"]["pool"], "timeout": limit}
            patch.setitem(known["OPTIONS"], "pool", pool)

        yield lead
        start_anew()
    connection.close()


@pytest.fixture
def proxy(through) -> Iterator[Proxy]:
    known = connection.settings_dict
    with Proxy(known["HOST"], int(known["PORT"])) as found:
        through("127.0.0.1", str(found.port))
        yield found
        found.restore()
        connection.close()
        connection.close_pool()


@pytest.fixture
def postgres(transactional_db) -> Iterator[psycopg.Connection]:
    """A connection of its own to the test database."""
    known = connection.settings_dict
    names = {"host": "HOST", "port": "PORT", "user": "USER", "dbname": "NAME"}
    options = {name: known[key] for name, key in names.items()}
    with psycopg.connect(**options, autocommit=True) as own:
        yield own


@pytest.fixture
def server_setting(postgres) -> Iterator[Callable[[str, str], None]]:
    """Changes a setting of the server until the test's end."""
    changed: list[str] = []

    def change(name: str, value: str) -> None:
        changed.append(name)
        postgres.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        postgres.execute("SELECT pg_reload_conf()")

    yield change
    postgres.execute("SET default_transaction_read_only = off")
    for name in changed:
        postgres.execute(f"ALTER SYSTEM RESET {name}")
    postgres.execute("SELECT pg_reload_conf()")


def write() -> bool:
    """Write as a request does: with a connection out of the pool."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE push_duty SET result = NULL")
        return True
    except DatabaseError:
        return False
    finally:
        connection.close()


def recovers() -> None:
    began = time.monotonic()
    wait_until(write)
    assert time.monotonic() - began < RECOVERY
    assert all(write() for _ in range(8))


def test_connections_closed_as_idle_are_never_handed_out(through, postgres, server_setting):
    known = connection.settings_dict
    postgres.execute("SET idle_session_timeout = 0")
    server_setting("idle_session_timeout", "1s")
    through(known["HOST"], known["PORT"])
    together = threading.Barrier(4)

    def use() -> None:
        connection.ensure_connection()
        together.wait(PATIENCE)
        connection.close()

    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(use) for _ in range(4)]:
            one.result()
    wait_until(lambda: not others(postgres))
    began = time.monotonic()
    assert all(write() for _ in range(8))
    assert time.monotonic() - began < 1  # a pool that tests one after the other takes seconds


def others(postgres: psycopg.Connection) -> int:
    found = postgres.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    return found.fetchone()[0]


def test_link_that_a_firewall_forgot_is_found_before_use(proxy, monkeypatch):
    assert write()
    monkeypatch.setattr(module, "IDLE_MAX", 0.0)
    monkeypatch.setattr(module, "CHECK_TIMEOUT", 0.2)
    for link in list(proxy.links):
        link.silence()
    assert write()


def test_connection_given_back_inside_a_transaction_is_usable_again(through, monkeypatch):
    known = connection.settings_dict
    through(known["HOST"], known["PORT"])
    monkeypatch.setattr(module, "IDLE_MAX", 0.0)  # the check asks the server each time
    connection.ensure_connection()
    connection.set_autocommit(False)  # as `transaction.atomic` does
    connection.close()
    assert all(write() for _ in range(8))  # the pool has several connections


def test_silent_links_are_given_up_and_replaced(proxy):
    assert write()
    proxy.silence()
    began = time.monotonic()
    assert not write()
    assert time.monotonic() - began < RECOVERY
    old = list(proxy.links)
    proxy.restore()
    for link in old:
        link.silence()  # these stay silent, as after a restart of a firewall
    recovers()


def test_drain_on_silent_link_fails_within_the_time_of_a_push(proxy, monkeypatch, imgo):
    """Also on a thread whose statements may take longer; a lock is waited for longer."""
    imgo(DATABASE_TIMEOUT=0.5)
    monkeypatch.setitem(connection.settings_dict, LIMIT, 2 * PATIENCE)
    assert write()
    for link in list(proxy.links):
        link.silence()
    began = time.monotonic()
    with pytest.raises(DatabaseError):
        drain(0)
    assert time.monotonic() - began < PATIENCE
    connection.close()
    with limited(extra=7.0):
        assert connection.connection.limit == 7.5
    assert connection.connection.limit == 2 * PATIENCE
    connection.close()
    assert drain(0) == 0


def test_statement_beyond_its_limit_is_cancelled_on_the_server(through, postgres):
    known = connection.settings_dict
    through(known["HOST"], known["PORT"])
    with postgres.transaction():
        postgres.execute("LOCK TABLE push_duty IN EXCLUSIVE MODE")
        assert not write()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE push_duty%'"
        waits += " AND state = 'active' AND pg_stat_clear_snapshot() IS NOT NULL"
        wait_until(lambda: postgres.execute(waits).fetchone() == (0,))
    recovers()


def test_read_only_connections_leave_the_pool(through, postgres, server_setting):
    known = connection.settings_dict
    through(known["HOST"], known["PORT"])
    assert write()
    server_setting("default_transaction_read_only", "on")
    wait_until(lambda: not write())
    postgres.execute("SET default_transaction_read_only = off")
    postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
    postgres.execute("SELECT pg_reload_conf()")
    recovers()


def test_too_many_connections_are_waited_out(through, postgres):
    known = connection.settings_dict
    through(known["HOST"], known["PORT"])
    options = {"host": known["HOST"], "port": known["PORT"], "user": known["USER"]}
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(psycopg.OperationalError):
            for _ in range(300):
                taken.enter_context(psycopg.connect(**options, dbname="postgres"))
        assert not write()
    recovers()


def test_callers_do_not_all_wait_for_a_server_that_is_gone(through, proxy, monkeypatch):
    monkeypatch.setitem(connection.settings_dict["OPTIONS"]["pool"], "timeout", 3.0)
    proxy.refuse()
    assert not write()  # one has waited in vain
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(write)
        wait_until(connection.pool._finding_out.locked)
        assert not any(write() for _ in range(8))
        assert time.monotonic() - began < 2.5  # eight times 3 s if each waited
        proxy.restore()
        first.result(PATIENCE)
    recovers()


@pytest.mark.long
def test_server_that_is_back_is_found_soon_however_long_it_was_away(through, proxy):
    proxy.refuse()
    began = time.monotonic()
    # After five seconds attempts with ever longer pauses would be four seconds apart.
    wait_until(lambda: not write() and time.monotonic() - began > 5)
    proxy.restore()
    began = time.monotonic()
    wait_until(write)
    assert time.monotonic() - began < RETRY_MAX + 1


class Standby(Postgres):
    """A copy of a running server that follows it until it is promoted."""

    def __init__(self, base: Path, programs: Path, primary: Postgres) -> None:
        self._primary = primary
        super().__init__(base, programs)

    def _make_database(self) -> None:
        source = f"host=127.0.0.1 port={self._primary.port} user=postgres"
        options = ("-D", self._data, "-d", source, "-R", "--checkpoint=fast", "--no-sync")
        copying = self._launch(self._programs / "pg_basebackup", *options)
        assert copying.wait(60) == 0, self._tail()


@pytest.mark.skipif(services.postgres is None, reason="the server is not ours to copy")
def test_second_host_is_used_after_a_failover(through, proxy, tmp_path):
    primary = services.postgres
    standby = Standby(tmp_path, primary._programs, primary)
    try:
        standby.start()
        through("127.0.0.1,127.0.0.1", f"{proxy.port},{standby.port}")
        assert write()
        proxy.refuse()
        assert not write()  # the standby takes no writes yet
        with psycopg.connect(standby.url, autocommit=True) as own:
            own.execute("SELECT pg_promote()")
        recovers()
    finally:
        connection.close()
        connection.close_pool()
        standby.remove()


@pytest.mark.skipif(services.postgres is None, reason="the server is not ours to copy")
def test_connection_from_before_a_promotion_is_on_the_new_timeline(
    through, postgres, monkeypatch, tmp_path
):
    primary = services.postgres
    standby = Standby(tmp_path, primary._programs, primary)
    try:
        standby.start()
        options = connection.settings_dict["OPTIONS"]
        monkeypatch.setitem(options, "target_session_attrs", "any")
        through("127.0.0.1", str(standby.port), limit=60.0)
        connection.ensure_connection()
        raw = connection.connection
        assert raw.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        with pytest.raises(psycopg.Error):
            raw.execute(outcome.SERVER)
        with psycopg.connect(standby.url, autocommit=True) as own:
            own.execute("SELECT pg_promote()")
        accept_push(Push(b"{}", keys=("a",)))
        assert connection.connection is raw
        system, timeline = raw.server
        assert raw.execute(outcome.SERVER).fetchone() == (system, timeline)
        before = postgres.execute(outcome.SERVER).fetchone()
        assert before[0] == system
        assert before[1] < timeline
    finally:
        connection.close()
        connection.close_pool()
        standby.remove()


def test_silent_first_host_costs_its_time_once(through, proxy):
    """Readiness connects anew each time, and must not wait for a host that is gone."""
    second = services.database_url.rpartition(":")[2].split("/")[0]
    through("127.0.0.1,127.0.0.1", f"{proxy.port},{second}")
    proxy.silence()
    wait_until(write)
    for _ in range(2):
        began = time.monotonic()
        with module.Connection.connect(**connection.get_connection_params()) as one:
            assert str(one.info.port) == second
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgres://u:p%40@h/db", "h", ""),
        ("postgres://u:p@one:5432,two:5433/db", "one,two", "5432,5433"),
        ("postgres://one,two/db?target_session_attrs=any", "one,two", ""),
        ("postgres://[::1]:55,[::2]:66/db", "::1,::2", "55,66"),
        ("postgres://%2Frun%2Fpostgresql/db", "/run/postgresql", ""),
    ],
)
def test_url_names_one_host_or_several(url, host, port):
    found = parse(url, 4)
    assert (found["HOST"], str(found["PORT"]), found["NAME"]) == (host, port, "db")
    assert found["OPTIONS"]["pool"]["max_size"] == 4
    attrs = "any" if "any" in url else "read-write"
    assert found["OPTIONS"]["target_session_attrs"] == attrs


def test_url_of_a_replica_prefers_standbys_and_only_reads():
    url = "postgres://one,two/db?target_session_attrs=any&options=-c%20work_mem%3D8MB"
    options = parse_replica(url)["OPTIONS"]
    assert options["target_session_attrs"] == "prefer-standby"
    assert options["options"] == "-c work_mem=8MB -c default_transaction_read_only=on"
    assert "pool" not in options
    plain = parse_replica("postgres://one/db")["OPTIONS"]
    assert plain["options"] == "-c default_transaction_read_only=on"


def test_url_of_a_replica_that_is_no_postgres_is_refused():
    with pytest.raises(ValueError, match="no URL of Postgres"):
        parse_replica("sqlite:////tmp/db")


@pytest.mark.parametrize("url", ["postgres://u@one,,two/db", "postgres://u@one:x,two:1/db"])
def test_url_with_a_host_that_is_none_is_refused(url):
    with pytest.raises(ValueError):  # noqa: PT011 - which text it has is settled in settings.py
        parse(url, 4)
