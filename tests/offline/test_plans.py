"""Queries of a node's rounds touch as few pages of a large table as of a small one.

Each is run as it is sent, then its plan is read: with its parameters and without, as a server with
prepared statements makes it. `make plans` does it with a million rows in each table.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from offline import conservation, key_messages, outbox_queue, retention, schedule, settlement
from offline.values import Receipt
from push.models import Canary, Dedupe, Duty, Node
from push.status import snapshot, vitals

pytestmark = pytest.mark.django_db

# Messages, each pending, in the outbox, and with an event.
ROWS = int(os.environ.get("PLAN_ROWS", "200000"))
KEYS = 500  # that have them
PAGES_MAX = 25_000  # of 8 KiB, touched by one statement, however many rows there are
SCANNED = (
    "offline_message", "offline_pending", "offline_event", "offline_outbox", "push_dedupe",
    "offline_scheduledpush",
)  # fmt: skip

# Indexes are made when the rows are there: that takes a quarter of the time.
FILL = f"""
    SET LOCAL session_replication_role = replica;
    SET LOCAL maintenance_work_mem = '256MB';
    UPDATE pg_index SET indisready = false
    WHERE indrelid::regclass::text = ANY('{{{",".join(SCANNED)}}}');
    INSERT INTO offline_message (id, audience, room, keys, stored, op, body, is_json, by, ensure,
                                 speed, recipients, created_at, expires_at, keep_until)
    SELECT n, 'keys', '', NULL, true, 5, '\\x31', true, '', false, 0, 1,
           now() - interval '1 hour', now() + interval '1 day',
           now() + CASE WHEN n <= {ROWS // 2} THEN interval '-1 s' ELSE interval '1 day' END
    FROM generate_series(1, {ROWS}) n;
    INSERT INTO offline_pending (message_id, key, expires_at)
    SELECT n, 'key ' || n % {KEYS},
           now() + CASE WHEN n <= {ROWS // 10} THEN interval '-1 s' ELSE interval '1 day' END
    FROM generate_series(1, {ROWS}) n;
    INSERT INTO offline_event (message_id, key, kind, session, reason, at)
    SELECT n, 'key ' || n % {KEYS}, 'received', 's', '', now() FROM generate_series(1, {ROWS}) n;
    INSERT INTO offline_outbox (message_id, partition, partitions, created_at, attempts, error,
                                origin)
    SELECT n, n % 4, 4, now() - interval '1 hour', 0, '', '' FROM generate_series(1, {ROWS}) n;
    INSERT INTO offline_scheduledpush (id, due_at, created_at, audience, room, keys, stored, op,
                                       body, is_json, by, ensure, speed, ttl, origin, exclude)
    SELECT -n, now() + (n - {ROWS // 10}) * interval '1 s', now(), 'keys', '', '["a"]', true, 5,
           '\\x31', true, '', false, 0, 60, '', ''
    FROM generate_series(1, {ROWS}) n;
    INSERT INTO push_dedupe (by, dedupe_id, message_id, created_at)
    SELECT '', 'd' || n, n, now() - interval '2 days' FROM generate_series(1, {ROWS // 10}) n;
    {"".join(f"REINDEX TABLE {name};" for name in SCANNED)}
    ANALYZE {", ".join(SCANNED)};
"""


@pytest.fixture(scope="module", autouse=True)
def _million(django_db_setup, django_db_blocker) -> Iterator[None]:
    """Fill the tables once, and leave nothing behind."""
    with django_db_blocker.unblock(), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(FILL)
        yield
        transaction.set_rollback(True)


Statement = tuple[str, Any]


@pytest.fixture
def statements() -> Iterator[list[Statement]]:
    """Records every statement with its parameters."""
    found: list[Statement] = []

    def record(execute: Any, sql: str, params: Any, *rest: Any) -> Any:
        if not sql.lstrip().startswith(("SAVEPOINT", "RELEASE", "SET", "ROLLBACK")):
            found.append((sql, params))
        return execute(sql, params, *rest)

    with connection.execute_wrapper(record):
        yield found


KEYS_ASKED = [(f"key {n}", 0) for n in range(250)]
SOME_ASKED = KEYS_ASKED[:5]
PAIRS = [(n, f"key {n % KEYS}") for n in range(1, 2_000)]
ROUNDS: dict[str, Callable[[], Any]] = {
    "audit": lambda: key_messages.read_missed(KEYS_ASKED, 200, 0),
    "recovery": lambda: key_messages.read_missed(SOME_ASKED, 200, 30),
    "replay": lambda: key_messages.read_pending(SOME_ASKED, 200),
    "history": lambda: key_messages.read_history([(key, 0, 5) for key, _ in SOME_ASKED], 200),
    "owed": lambda: key_messages.filter_pending(PAIRS),
    "receipts": lambda: settlement.record_receipts(
        [Receipt(n, key, "received", "s") for n, key in PAIRS]
    ),
    "sweep": lambda: outbox_queue.overdue_partitions(5),
    "drain": lambda: outbox_queue.read_page(3, 0, 200),
    "schedule": schedule.is_due,
    "due pushes": schedule.lock_due,
    "trim": lambda: settlement.keys_over_limit([f"key {n}" for n in range(200)], 10),
    "expire": settlement.expire_batch,
    "forget messages": retention.prune_batch,
    "forget dedupe ids": Dedupe.objects.forget,
    "balance": lambda: conservation.balance_of_latest(10_000),
    "canaries": lambda: Canary.objects.due(4, 10.0),
    "duty": lambda: Duty.objects.claim("prune", 30.0),
    "announce": lambda: Node.objects.announce("n"),
    "readiness": lambda: (vitals.outbox(), vitals.pending()),
    "dashboard": snapshot.of_database,
}


def touched(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def whole_scans(plan: dict[str, Any]) -> list[str]:
    """The large tables that a plan reads as a whole, and not only up to a limit."""
    limited = {
        id(one) for node in nodes(plan) if node["Node Type"] == "Limit" for one in nodes(node)
    }
    return [
        node["Relation Name"]
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan"
        and node["Relation Name"] in SCANNED
        and id(node) not in limited
    ]


def explain(statement: Statement) -> dict[str, Any]:
    sql, params = statement
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql, params)
            plan: dict[str, Any] = cursor.fetchone()[0][0]["Plan"]
        transaction.set_rollback(True)
    return plan


def generic_plan(statement: Statement) -> dict[str, Any] | None:
    """The plan that does not know the parameters; None where a server cannot infer their types."""
    sql, params = statement
    numbers = iter(range(1, 100_000))
    numbered = re.sub("%s", lambda _: f"${next(numbers)}", sql).replace("%%", "%")
    if not params or len(params) > 1_100:
        return None
    nulls = ", ".join(["NULL"] * len(params))
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            raw = cursor.cursor
            raw.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            raw.execute(f"PREPARE round AS {numbered}")
            raw.execute(f"EXPLAIN (FORMAT JSON) EXECUTE round ({nulls})")
            plan: dict[str, Any] = raw.fetchone()[0][0]["Plan"]
            raw.execute("DEALLOCATE round")
    except psycopg.ProgrammingError:
        return None
    return plan


@pytest.mark.parametrize("name", ROUNDS)
def test_round_on_large_tables_touches_few_pages(name, statements):
    ROUNDS[name]()
    recorded = [one for one in statements if re.match(r"\s*(SELECT|WITH|DELETE|UPDATE)", one[0])]
    assert recorded
    for statement in recorded:
        plan = explain(statement)
        assert whole_scans(plan) == [], statement[0]
        assert touched(plan) < PAGES_MAX, (touched(plan), statement[0])


@pytest.mark.parametrize("name", ROUNDS)
def test_round_without_its_parameters_has_no_other_plan(name, statements):
    ROUNDS[name]()
    plans = [generic_plan(one) for one in statements if re.match(r"\s*(SELECT|WITH)", one[0])]
    for plan in plans:
        if plan is not None:
            assert whole_scans(plan) == []
