"""Readiness checks: they do what a login and a push need, on their own thread and connections.

Each check ends in bounded time. A text other than `ok` is imgo's description of the fault.
"""

import secrets

from django.db import connection, transaction
from django.db.models.functions import Now

from accounts.models import ApiKey, Token
from imgo_site.celery import app
from imgo_site.deployment import has_workers
from offline.models import Message, Outbox, Pending
from push.bus.service_faults import of_redis
from push.models import Dedupe, Duty
from push.registry.base import Registry

WRITE_TIMEOUT = 2.5  # seconds for the test write, below `bounded_query.PATIENCE`
BROKER_TIMEOUT = 2  # seconds to connect to the broker
# The tables that a push writes and a login reads, by the lock that this takes. Locking is cheap. It
# shows whether another transaction, such as a migration, blocks them.
LOCKS = {"ROW EXCLUSIVE": (Message, Pending, Outbox, Dedupe), "ACCESS SHARE": (Token, ApiKey)}


def try_database() -> None:
    """Lock the used tables, write a row and roll back. Raises what the database raises."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(_prelude())  # one round trip: the latency may be high
        # A unique name, so that two processes do not wait for each other.
        Duty.objects.create(name=f"readiness {secrets.token_hex(8)}", until=Now())
        transaction.set_rollback(True)


def _prelude() -> str:
    statements = [f"SET LOCAL statement_timeout = {WRITE_TIMEOUT * 1000:.0f}"]
    for mode, models in LOCKS.items():
        tables = ", ".join(model._meta.db_table for model in models)
        statements.append(f"LOCK TABLE {tables} IN {mode} MODE")
    return "; ".join(statements)


def try_layer(registry: Registry) -> None:
    """Write to Redis as a login does, and publish as a push does. Raises `Unavailable`."""
    registry.probe()


def try_broker() -> str:
    """Return "ok", or why tasks cannot be enqueued; deliveries then wait for a node's sweep."""
    if not has_workers():
        return "ok"
    try:
        with app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT)
            broker.default_channel  # noqa: B018 - opens it
    except Exception as error:  # noqa: BLE001 - of any transport
        text = of_redis(error)
        return "cannot be reached" if text.startswith("refuses what") else text
    return "ok"
