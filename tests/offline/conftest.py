"""Messages for the tests of offline/."""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from offline.models import Message, Pending


@pytest.fixture
def store() -> Callable[..., int]:
    """Stores a message that is pending for these keys: `store("a", "b", ttl=60)`; its id."""

    def store_one(*keys: str, ttl: float = 3600, body: bytes = b"{}", **fields: Any) -> int:
        now = timezone.now()
        message = Message(
            audience=Message.Audience.KEYS,
            stored=True,
            body=body,
            expires_at=now + timedelta(seconds=ttl),
            **fields,
        )
        return Message.objects.store([message], [keys])[0]

    return store_one


def owed() -> Collection[tuple[int, str]]:
    """Every (message id, key) that is pending, in order."""
    return sorted(Pending.objects.values_list("message_id", "key"))
