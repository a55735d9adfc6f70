"""Messages for the tests of offline/."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from offline.models import Message, NewMessage, Pending


@pytest.fixture
def store() -> Callable[..., int]:
    """Stores a message that is pending for these keys: `store("a", "b", ttl=60)`; its id."""

    def store_one(*keys: str, ttl: float = 3600, body: bytes = b"{}", **fields: Any) -> int:
        return Message.objects.store([NewMessage(body, ttl, keys=keys, **fields)])[0]

    return store_one


def owed() -> Collection[tuple[int, str]]:
    """Every (message id, key) that is pending, in order."""
    return sorted(Pending.objects.values_list("message_id", "key"))
