"""Messages for the tests of offline/."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from offline.key_messages import read_pending
from offline.models import RECEIVED, Event, Pending
from offline.settlement import record_receipts
from offline.store import insert
from offline.values import NewMessage, Receipt


@pytest.fixture
def store() -> Callable[..., int]:
    """Stores a message that is pending for these keys: `store("a", "b", ttl=60)`; its id."""

    def store_one(*keys: str, ttl: float = 3600, body: bytes = b"{}", **fields: Any) -> int:
        return insert([NewMessage(body, ttl, keys=keys, **fields)]).ids[0]

    return store_one


def owed() -> Collection[tuple[int, str]]:
    """Every (message id, key) that is pending, in order."""
    return sorted(Pending.objects.values_list("message_id", "key"))


def pending_ids(key: str, after: int = 0, size: int = 100) -> list[int]:
    """The ids of a page of one key."""
    return [message.id for message in read_pending([(key, after)], size)[key, after]]


def events(*fields: str) -> list[tuple]:
    """The events in the order they were written."""
    return list(Event.objects.order_by("pk").values_list("message_id", "key", *fields))


def received(*pairs: tuple[int, str], session: str = "s1") -> int:
    """The kernel took these for a session."""
    return record_receipts([Receipt(i, key, RECEIVED, session) for i, key in pairs])
