"""What happens between two queries of one call."""

import threading

import pytest
from django.db import connection

from offline.models import RECEIVED, Event
from offline.settlement import drop_oldest, record_receipts
from offline.values import Receipt
from tests import call_and_close

from .conftest import owed


@pytest.fixture
def between(transactional_db):
    """Calls a function, on a connection of its own, just before this connection's n-th query."""

    def call_before(query: int, function, *args):
        seen = []

        def watch(execute, sql, *rest):
            seen.append(sql)
            if len(seen) == query:
                thread = threading.Thread(target=call_and_close, args=(function, *args))
                thread.start()
                thread.join()
            return execute(sql, *rest)

        return connection.execute_wrapper(watch)

    return call_before


def acknowledge(*pairs: tuple[int, str]) -> None:
    record_receipts([Receipt(i, key, RECEIVED, "s") for i, key in pairs])


def test_drop_oldest_of_messages_acknowledged_meanwhile(store, between):
    ids = [store("a") for _ in range(4)]
    with between(2, acknowledge, *((one, "a") for one in ids)):
        drop_oldest("a", 3)
    assert owed() == []
    kinds = Event.objects.values_list("kind", flat=True)
    assert list(kinds) == ["received"] * 4
