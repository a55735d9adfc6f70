"""/healthz, /readyz and /metrics while something is wrong: they say what, and never fail."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.process_parts import process
from offline.models import Message, Outbox, Pending
from push.accept.accept import push_to_key
from push.metrics import database_pool
from push.metrics import definitions as metrics
from push.models import Canary
from push.registry.redis_registry import RedisRegistry
from push.status import metrics_page, readiness, vitals
from push.status.bounded_query import BoundedQuery
from push.status.instance import Instance

ALL_WELL = {"process": "ok", "database": "ok", "workers": "ok", "layer": "ok"}


@pytest.fixture
def readyz(client):
    """Asks; (HTTP status, status, checks)."""

    def ask():
        answer = client.get("/readyz")
        assert answer["Content-Type"] == "application/json"
        found = answer.json()
        return answer.status_code, found["status"], found["checks"]

    return ask


@pytest.fixture
def layer_down(closed_port, monkeypatch):
    """Redis cannot be reached."""
    away = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    monkeypatch.setattr(vitals, "get_registry", lambda: away)


def scrape(api) -> str:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_all_is_well(readyz, redis_client):
    assert readyz() == (200, "ok", ALL_WELL)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("change", "word"), [("starting", "starting"), ("stopping", "stopping")])
def test_a_process_that_does_not_serve_is_unavailable(readyz, redis_client, change, word):
    getattr(process.get(Instance).health, change)()
    assert readyz() == (503, "unavailable", {**ALL_WELL, "process": word})


def test_without_the_database_it_is_unavailable_and_alive(database_down, client, readyz):
    status, word, checks = readyz()
    assert (status, word, checks["database"]) == (503, "unavailable", "cannot be reached")
    assert checks["layer"] == "ok"
    assert "workers" not in checks  # nobody knows
    assert client.get("/healthz").status_code == 200
    database_down()
    assert readyz()[0] == 200


@pytest.mark.django_db(transaction=True)
def test_without_the_layer_it_is_unavailable_and_alive(readyz, client, layer_down):
    assert readyz() == (503, "unavailable", {**ALL_WELL, "layer": "cannot be reached"})
    assert client.get("/healthz").status_code == 200


def test_without_both_it_says_both(readyz, database_down, layer_down):
    status, word, checks = readyz()
    assert (status, word) == (503, "unavailable")
    assert (checks["database"], checks["layer"]) == ("cannot be reached", "cannot be reached")


@pytest.mark.parametrize(
    ("table", "mode"),
    [
        ("offline_message", "SHARE"),
        ("push_dedupe", "SHARE"),
        ("accounts_token", "ACCESS EXCLUSIVE"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_locked_table_makes_it_unavailable(readyz, redis_client, monkeypatch, table, mode):
    """A migration that keeps pushes or logins waiting."""
    monkeypatch.setattr(readiness, "WRITE_TIMEOUT", 0.2)
    connection.ensure_connection()
    with psycopg.connect(connection.connection.info.dsn) as other:
        other.execute(f"LOCK TABLE {table} IN {mode} MODE")
        status, word, checks = readyz()
        assert (status, word, checks["database"]) == (503, "unavailable", "does not answer")
    assert readyz() == (200, "ok", ALL_WELL)


@pytest.mark.django_db(transaction=True)
def test_deaf_workers_make_it_slower_and_not_unready(readyz, redis_client, api, imgo):
    imgo(CANARY_INTERVAL=10.0)
    long_ago = Now() - timedelta(seconds=31)
    Canary.objects.create(partition=0, first_at=long_ago, sent_at=Now(), heard_at=Now())
    Canary.objects.create(partition=1, first_at=long_ago, sent_at=Now(), heard_at=long_ago)
    Canary.objects.create(partition=2, first_at=long_ago, sent_at=Now())  # never heard of
    workers = "nobody takes tasks for partition 1, 2"
    assert readyz() == (200, "degraded", {**ALL_WELL, "workers": workers})
    lines = scrape(api).splitlines()
    deaf = [line for line in lines if line.startswith("imgo_worker_deaf{")]
    assert {f'imgo_worker_deaf{{partition="{n}"}} {float(n > 0)}' for n in range(3)} <= set(deaf)


@pytest.mark.django_db(transaction=True)
def test_a_parked_message_makes_it_degraded(readyz, redis_client, api):
    push_to_key("a", {"n": 1})
    Outbox.objects.update(parked_at=timezone.now())
    assert readyz() == (200, "degraded", {**ALL_WELL, "outbox": "1 messages are parked"})
    assert "imgo_outbox_parked 1.0" in scrape(api)


@pytest.mark.django_db(transaction=True)
def test_in_the_embedded_mode_there_are_no_workers_to_miss(readyz, settings, redis_client):
    settings.IMGO_BROKER_URL = ""
    assert readyz() == (200, "ok", {**ALL_WELL, "workers": "in this process"})


def test_metrics_without_the_database_say_so(database_down):
    found = Instance().vitals
    found.refresh_metrics()
    assert b"imgo_database_up 0.0" in metrics_page.text()
    database_down()
    found.refresh_metrics()
    assert b"imgo_database_up 1.0" in metrics_page.text()


# What is pending


def owe(count: int) -> None:
    message = Message.objects.get(pk=push_to_key("nobody", {}, store=False))
    Pending.objects.bulk_create(
        Pending(message=message, key=f"k{n}", expires_at=message.expires_at) for n in range(count)
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [0, 5])
def test_few_pending_deliveries_are_counted(count, api):
    owe(count)
    assert f"imgo_pending {count}.0" in scrape(api)


@pytest.mark.django_db(transaction=True)
def test_many_pending_deliveries_are_estimated_at_no_cost(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(vitals, "COUNTED_MAX", 100)
    owe(500)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("ANALYZE offline_pending")
    with django_assert_num_queries(2) as queries:
        assert vitals.pending() == 500
    assert "LIMIT 101" in queries[0]["sql"]


# The pool


@pytest.mark.django_db(transaction=True)
def test_the_pool_is_shown_by_state(api):
    text = scrape(api)
    assert 'imgo_database_pool_connections{state="used"} ' in text
    assert "imgo_database_pool_connections_max 4.0" in text
    assert "imgo_database_pool_timeouts_total " in text


def test_waits_for_the_pool_in_vain_are_counted_once(database_down):
    before = metrics.POOL_TIMEOUTS._value.get()
    with pytest.raises(OperationalError, match="get a connection after"):
        connection.ensure_connection()
    database_pool.update()
    counted = metrics.POOL_TIMEOUTS._value.get() - before
    assert counted >= 1
    database_pool.update()
    assert metrics.POOL_TIMEOUTS._value.get() - before == counted


def test_look_after_a_restart_meets_no_connection_that_was_cut(terminate):
    together = threading.Barrier(3)

    def connect() -> None:
        connection.ensure_connection()
        together.wait(30)
        connection.close()

    with ThreadPoolExecutor(3) as threads:
        for one in [threads.submit(connect) for _ in range(3)]:
            one.result()
    assert terminate() >= 3
    look = BoundedQuery(Canary.objects.exists)
    for _ in range(5):
        assert look() is False
