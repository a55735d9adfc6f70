"""Storing on Postgres: however messages are put into statements, the rows are the same."""

from typing import Any

import pytest

from offline.models import Message, Outbox, Pending
from offline.store import insert
from offline.values import NewMessage

pytestmark = pytest.mark.django_db

LONG = 400 * 24 * 3600.0  # seconds: longer than records are kept


def rows_of(message_id: int) -> dict[str, Any]:
    """What is stored for a message; times are relative to the time at which it was stored."""
    [message] = Message.objects.filter(pk=message_id).values()
    at = message.pop("created_at")
    message["body"] = bytes(message["body"])
    pending = Pending.objects.filter(message_id=message_id).order_by("key")
    outbox = Outbox.objects.filter(message_id=message_id).order_by("partition")
    return {
        **message,
        "id": None,
        "expires_at": message["expires_at"] - at,
        "keep_until": message["keep_until"] - at,
        "pending": [(one.key, one.expires_at - at) for one in pending],
        "outbox": [
            (one.partition, one.partitions, one.generation, one.origin, one.created_at - at)
            for one in outbox
        ],
    }


@pytest.mark.parametrize(
    "new",
    [
        NewMessage(b"\0\xff\\'%s", 60, keys=("ä\"'\\%s{}",), by="it's", hashes=(2**32 - 5,)),
        NewMessage(b"{}", 1.5, keys=("a",), stored=False, op=2**31 - 1, is_json=False),
        NewMessage(b"{}", LONG, keys=("a",), origin='{"request": "\\"}', ensure=True),
        NewMessage(b"{}", 60, keys=("b", "a"), hashes=(7, 0)),
        NewMessage(b"{}", 60, "room", room="r", stored=False),
        NewMessage(b"{}", 60, "all", stored=False, speed=100, hashes=(0, 1, 2)),
        NewMessage(b"", 60, keys=()),
    ],
)
def test_message_stored_alone_has_the_same_rows_as_among_others(new, imgo):
    imgo(PARTITIONS=8)
    [alone] = insert([new]).ids
    _, among, _ = insert([NewMessage(b"1", 60, keys=("a",)), new, NewMessage(b"2", 60)]).ids
    assert rows_of(alone) == rows_of(among)
    row = rows_of(alone)
    assert (row["body"], row["op"], row["by"]) == (new.body, new.op, new.by)
    assert row["expires_at"].total_seconds() == new.ttl
    assert row["keys"] == (list(new.keys) if new.audience == "keys" else None)
    assert [key for key, _ in row["pending"]] == (sorted(new.keys) if new.stored else [])
    assert [one[0] for one in row["outbox"]] == sorted([number % 8 for number in new.hashes])
