"""Readiness: do what a login and a push need, on a thread and connections of its own.

Each look ends in bounded time. A text other than `ok` says what is wrong in our own words.
"""

import secrets

from django.db import connection, transaction
from django.db.models.functions import Now

from imgo_site.celery import app
from imgo_site.deployment import has_workers
from push.models import Duty
from push.registry import Registry
from push.service_faults import of_redis

WRITE_TIMEOUT = 2.5  # seconds for the write that readiness tries, below a look's patience
BROKER_TIMEOUT = 2  # seconds to connect to the broker


def try_database() -> None:
    """Write a row and take it back. Raises what the database raises."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true)",
                    [f"{WRITE_TIMEOUT * 1000:.0f}"],
                )
        # A name of its own: two processes at once must not wait for each other.
        Duty.objects.create(name=f"readiness {secrets.token_hex(8)}", until=Now())
        transaction.set_rollback(True)


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
