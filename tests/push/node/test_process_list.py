"""The list of processes: who announces itself, what it has counted, and when it is gone."""

import logging
import threading
import time
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from imgo_site.celery import app
from imgo_site.conf import conf
from push.hooks.figures import HookFigures
from push.metrics import definitions as metrics
from push.node import process_list
from push.node.process_list import Announcer, tally
from push.registry.base import NodeEntry, ProcessEntry, Tally
from push.registry.memory_registry import MemoryRegistry
from push.registry.redis_processes import IDS
from push.registry.redis_registry import RedisRegistry
from push.session.session_log import log_refusal
from push.session.session_records import SessionEvent
from push.status import snapshot
from push.wire import CloseCode

API = ProcessEntry("h:1", "api", "h, pid 1", 1_700_000_000.0, (), Tally(drops=1, refusals=2))
WORKER = ProcessEntry("h:2", "worker", "celery@h", 1_700_000_000.0, (0, 2), Tally(drops=3))
HOOKS = {"receive": HookFigures({"answered": 2, "timeout": 1}, 0.25, is_open=True)}
NODE = ProcessEntry("n1", "node", "h:8000", 1_700_000_000.0, (), Tally(client_closes=5), HOOKS)
PATIENCE = 10.0  # seconds


@pytest.fixture
def registry(settings, redis_client) -> RedisRegistry:
    return RedisRegistry(settings.REDIS_URL)


@pytest.fixture
def announcer(monkeypatch) -> Announcer:
    """The process's announcer, which has not begun, and begins no thread."""
    made = Announcer()
    monkeypatch.setattr(process_list, "announcer", lambda: made)
    monkeypatch.setattr(made, "_run", made._renew)
    return made


def eventually_listed(registry: RedisRegistry, count: int = 1) -> list[ProcessEntry]:
    deadline = time.monotonic() + PATIENCE
    while len(found := registry.processes()) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def test_processes_announced_are_listed_by_kind(registry):
    for process in (WORKER, NODE, API):
        registry.announce_process(process)
    assert registry.processes() == [API, NODE, WORKER]


def test_process_not_renewed_leaves_the_list(registry, redis_client):
    registry.announce_process(API)
    name = "imgo:registry:process:h:1"
    assert 0 < redis_client.pttl(name) <= 20_000
    redis_client.delete(name)  # as Redis does at the end of the lease
    assert registry.processes() == []
    assert redis_client.scard(IDS) == 0


def test_process_announced_again_has_one_thread_and_its_new_entry(registry, announcer, monkeypatch):
    begun: list[str] = []
    monkeypatch.setattr(announcer, "_run", lambda: begun.append(""))
    announcer.start("api")
    announcer.start("worker", "celery@h", (0, 2))
    announcer._renew()
    (entry,) = eventually_listed(registry)
    assert (entry.kind, entry.name, entry.partitions) == ("worker", "celery@h", (0, 2))
    for thread in threading.enumerate():
        if thread.name == "imgo-announcer":
            thread.join(PATIENCE)
    assert len(begun) == 1


def test_announcer_that_has_ended_is_not_in_the_list(registry, announcer):
    registry.announce_process(NODE)
    announcer.start("api")
    eventually_listed(registry, 2)
    announcer.close()
    assert registry.processes() == [NODE]


def test_withdrawal_waits_for_a_renewal_under_way(registry, monkeypatch):
    monkeypatch.setattr(process_list, "WITHDRAW_TIMEOUT", PATIENCE)
    begun, withdrawn = threading.Event(), threading.Event()

    def announce_slowly(process: ProcessEntry, _: object) -> None:
        begun.set()
        withdrawn.wait(0.2)  # seconds that a withdrawal has to come too early
        registry.announce_process(process)

    def withdraw(process_id: str) -> None:
        registry.withdraw_process(process_id)
        withdrawn.set()

    monkeypatch.setattr(process_list, "announce", announce_slowly)
    monkeypatch.setattr(
        process_list, "get_registry", lambda: SimpleNamespace(withdraw_process=withdraw)
    )
    others = threading.enumerate()
    announcer = Announcer()
    announcer.start("api")
    (renewing,) = (one for one in threading.enumerate() if one not in others)
    assert begun.wait(PATIENCE)
    announcer.close()
    renewing.join(PATIENCE)
    assert withdrawn.is_set()
    assert registry.processes() == []


async def test_memory_registry_lists_its_process_while_the_node_runs():
    registry = MemoryRegistry()
    registry.announce_process(NODE)
    assert registry.processes() == []
    await registry.start(NodeEntry("n1", "h:8000", 1, 0.0))
    assert registry.processes() == [NODE]


def test_tally_counts_drops_refusals_and_closes():
    before = tally()
    metrics.DROPS.labels("busy_group").inc(2)
    metrics.REQUESTS_REFUSED.labels("400").inc()
    metrics.CLOSED.labels("tcp", "client").inc(3)
    metrics.CLOSED.labels("tcp", "kicked").inc()
    log_refusal("", SessionEvent(0.0, "", "tcp", "192.0.2.1", code=int(CloseCode.UNAUTHORIZED)))
    after = tally()
    assert (after.drops - before.drops, after.refusals - before.refusals) == (2, 2)
    assert after.client_closes - before.client_closes == 3
    assert after.server_closes - before.server_closes == 1


def test_picture_lists_processes_and_sums_their_tallies(client, db, registry):
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    for process in (NODE, API, WORKER):
        registry.announce_process(process)
    picture = client.get("/dashboard/data").json()
    rows = picture["processes"]["rows"]
    assert [(row["kind"], row["name"], row["partitions"]) for row in rows] == [
        ("api", "h, pid 1", []),
        ("worker", "celery@h", [0, 2]),
    ]
    tallies = {"drops": 4, "refusals": 2, "client_closes": 5, "server_closes": 0}
    assert picture["tally"] == tallies
    assert snapshot.totals()["tally"] == tallies


def test_wsgi_request_announces_an_api_process(registry, announcer):
    process_list._announce_api(ASGIHandler)  # a node
    assert registry.processes() == []
    process_list._announce_api(WSGIHandler)
    (found,) = eventually_listed(registry)
    assert (found.kind, found.partitions) == ("api", ())


def test_worker_that_is_ready_announces_its_partitions(registry, announcer, settings):
    class Sender:
        hostname = "celery@h"

    sender = Sender()
    process_list._announce_worker(sender)  # of another application
    assert registry.processes() == []
    sender.app = app
    process_list._announce_worker(sender)
    (found,) = eventually_listed(registry)
    assert (found.kind, found.name) == ("worker", "celery@h")
    assert found.partitions == tuple(range(conf.PARTITIONS))


def test_announcer_warns_once_while_redis_is_away(closed_port, monkeypatch, caplog):
    away = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    monkeypatch.setattr(process_list, "get_registry", lambda: away)
    announcer = Announcer()
    announcer._entry = API
    with caplog.at_level(logging.WARNING, logger="push.node.process_list"):
        announcer._renew()
        announcer._renew()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "could not list this process in the dashboard"
    ]
