"""Storing messages: ids, pending rows, and the bodies as they were given."""

import json
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from offline.key_messages import read_pending
from offline.models import Message, Pending
from offline.sql import CHUNK
from offline.store import insert
from offline.values import NewMessage, PendingMessage

from .conftest import owed

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def test_ids_have_the_order_of_the_messages(store):
    new = [NewMessage(b"%d" % n, 60, "all", stored=False) for n in range(1000)]
    ids = insert(new).ids
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    bodies = Message.objects.order_by("pk").values_list("body", flat=True)
    assert [bytes(body) for body in bodies] == [b"%d" % n for n in range(1000)]
    assert store("a") > ids[-1]


def test_each_message_is_pending_for_its_own_keys():
    new = [NewMessage(b"1", 60, keys=keys) for keys in (("a", "b"), (), ("b",))]
    one, two, three = insert(new).ids
    assert owed() == [(one, "a"), (one, "b"), (three, "b")]
    counts = Message.objects.order_by("pk").values_list("pk", "recipients")
    assert list(counts) == [(one, 2), (two, 0), (three, 1)]


def test_what_is_not_to_be_stored_is_pending_for_nobody(store):
    one = store("a", stored=False)
    assert owed() == []
    assert Message.objects.get(pk=one).keys == ["a"]


def test_more_keys_than_a_statement_takes(store):
    keys = [f"k{n}" for n in range(2 * CHUNK + 7)]
    message = store(*keys)
    assert owed() == sorted((message, key) for key in keys)


def test_no_messages_are_stored_as_nothing():
    assert insert([]).ids == []


def test_a_message_cannot_be_pending_twice_for_a_key(store):
    message = store("a")
    with pytest.raises(IntegrityError), transaction.atomic():
        Pending.objects.create(message_id=message, key="a", expires_at=timezone.now())


@pytest.mark.parametrize("body", [b"\0\xff", b"", bytes(range(256)), '{"ä":1}'.encode()])
def test_a_body_is_kept_byte_for_byte(store, body):
    message = store("a", body=body, is_json=False, op=1001)
    assert read_pending([("a", 0)], 1) == {
        ("a", 0): [PendingMessage(message, 1001, body, is_json=False)]
    }


@pytest.mark.parametrize("keys", [None, [], ["a", 'b"', "ä"]])
def test_the_keys_of_a_live_message_are_kept(keys):
    limit = timezone.now() + timedelta(hours=1)
    times = {"expires_at": limit, "keep_until": limit}
    row = Message.objects.create(audience="keys", keys=keys, body=b"1", **times)
    row.refresh_from_db()
    assert row.keys == keys
    assert json.dumps(row.keys) == json.dumps(keys)
