"""The calls: what they write, and when."""

import json
from datetime import UTC, datetime
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase, TransactionTestCase
from django.test.utils import CaptureQueriesContext

from imgo_client.django import push_to_all, push_to_key, push_to_keys, push_to_room
from imgo_client.django.models import LANES, Outbox, lane_of
from shop.models import Order

from .base import imgo


class PushTests(TestCase):
    def test_call_in_transaction_makes_one_query(self):
        with CaptureQueriesContext(connection) as queries, transaction.atomic():
            push_id = push_to_key("alice", {"hello": "world"}, ttl=60)
        changes = [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]]
        self.assertEqual(len(changes), 1, changes)
        row = Outbox.objects.get()
        self.assertIsInstance(push_id, UUID)
        self.assertEqual(row.push_id, push_id.hex)
        self.assertEqual((row.target, row.name, row.lane), ("key", "alice", lane_of("alice")))
        self.assertEqual(row.options, {"ttl": 60})
        sent = json.loads(row.as_push().encoded)
        wanted = {"to": {"key": "alice"}, "dedupe_id": push_id.hex, "ttl": 60}
        self.assertEqual(sent, {**wanted, "body": {"hello": "world"}})

    def test_each_target_is_sent_as_the_api_has_it(self):
        push_to_keys(["b", "a", "b"], "both", store=False, op=1000)
        push_to_keys(["only"], None)
        push_to_room("lobby", [1, "é", "\U0001f600"], ensure=True)
        push_to_all(b' {"raw": 1} ', dedupe_id="mine")
        sent = [json.loads(row.as_push().encoded) for row in Outbox.objects.all()]
        self.assertEqual([one["to"] for one in sent[:1]], [{"keys": ["b", "a"]}])
        self.assertEqual(
            [one["to"] for one in sent[1:]], [{"key": "only"}, {"room": "lobby"}, {"all": True}]
        )
        self.assertEqual(
            (sent[0]["store"], sent[0]["op"], sent[2]["ensure"]), ("never", 1000, True)
        )
        self.assertEqual(sent[2]["body"], [1, "é", "\U0001f600"])
        self.assertEqual((sent[3]["body"], sent[3]["dedupe_id"]), ({"raw": 1}, "mine"))

    def test_push_to_a_room_may_be_kept_out_of_its_history(self):
        push_to_room("chat-1", {"typing": "bob"}, store=False)
        push_to_room("chat-1", "hello")
        sent = [json.loads(row.as_push().encoded) for row in Outbox.objects.all()]
        self.assertEqual([one.get("store") for one in sent], ["never", None])

    def test_seconds_until_a_push_count_from_the_call(self):
        before = datetime.now(tz=UTC)
        push_to_key("alice", 1, send_at=90)
        push_to_room("r", 2, send_at=before)
        one, two = [json.loads(row.as_push().encoded) for row in Outbox.objects.all()]
        seconds = (datetime.fromisoformat(one["send_at"]) - before).total_seconds()
        self.assertTrue(90 <= seconds < 150, seconds)
        self.assertEqual(two["send_at"], before.isoformat())

    def test_collapse_key_and_version_are_sent_to_the_server(self):
        push_to_key("alice", 1, collapse_key="unread", version=0)
        found = json.loads(Outbox.objects.get().as_push().encoded)
        self.assertEqual((found["collapse_key"], found["version"]), ("unread", 0))

    def test_excluded_sessions_are_sent_to_the_server(self):
        push_to_room("r", 1, exclude=["5938fe7d-12"])
        row = Outbox.objects.get()
        self.assertEqual(json.loads(row.as_push().encoded)["exclude"], ["5938fe7d-12"])

    def test_notification_of_a_push_is_kept_with_it(self):
        notify = {"title": "Order 7 ✓", "data": {"n": 1}}
        push_to_key("alice", 1, notify=notify, notify_after=5)
        push_to_keys(["alice", "bob"], 2, notify={"title": "Hi"})
        one, two = [json.loads(row.as_push().encoded) for row in Outbox.objects.all()]
        self.assertEqual((one["notify"], one["notify_after"]), (notify, 5))
        self.assertEqual((two["notify"], "notify_after" in two), ({"title": "Hi"}, False))

    def test_lane_of_a_list_is_that_of_its_first_key(self):
        push_to_keys(["alice", "bob"], 1)
        push_to_key("alice", 2)
        self.assertEqual({row.lane for row in Outbox.objects.all()}, {lane_of("alice")})
        self.assertEqual(len({lane_of(str(number)) for number in range(1000)}), LANES)

    def test_what_the_server_would_refuse_is_refused_by_the_call(self):
        for call in (
            lambda: push_to_key("", 1),
            lambda: push_to_key("a\0", 1),
            lambda: push_to_key("a\ud800", 1),
            lambda: push_to_key("a" * 256, 1),
            lambda: push_to_keys([], 1),
            lambda: push_to_room("r", 1, ttl=0),
            lambda: push_to_all(1, op=7),
            lambda: push_to_all(1, send_at=-1),
            lambda: push_to_key("a", 1, exclude=["a,b"]),
            lambda: push_to_key("a", 1, version=1),
            lambda: push_to_key("a", 1, collapse_key="c", version=-1),
            lambda: push_to_key("a", 1, collapse_key="c" * 65),
            lambda: push_to_key("a", 1, exclude=["s-1"] * 11),
            lambda: push_to_all(1, send_at=datetime(2026, 12, 24)),
            lambda: push_to_key("a", 1, notify={"body": "no title"}),
            lambda: push_to_key("a", 1, notify={"title": "a", "sound": "b"}),
            lambda: push_to_key("a", 1, notify={"title": "a"}, notify_after=-1),
            lambda: push_to_key("a", 1, notify={"title": "a"}, store=False),
            lambda: push_to_key("a", 1, notify_after=5),
            lambda: push_to_all(float("nan")),
            lambda: push_to_all(b"no JSON"),
            lambda: push_to_all(["half of a pair: \ud83d"]),
            lambda: push_to_all(b'"\\uD83D"'),
            lambda: push_to_all(1, dedupe_id="\n"),
        ):
            with self.assertRaises(ValueError):
                call()
        for call in (
            lambda: push_to_key(7, 1),
            lambda: push_to_key("a", 1, exclude="s-1"),
            lambda: push_to_keys("alice", 1),
            lambda: push_to_all(object()),
            lambda: push_to_key("a", 1, by="me"),
        ):
            with self.assertRaises(TypeError):
                call()
        self.assertFalse(Outbox.objects.exists())

    def test_escapes_of_whole_pairs_are_accepted(self):
        push_to_all(b'"\\ud83d\\ude00"')
        push_to_all("\\ud83d")  # a backslash, and letters
        self.assertEqual([json.loads(row.body) for row in Outbox.objects.all()], ["😀", "\\ud83d"])


class TransactionTests(TransactionTestCase):
    databases = {"default", "other"}

    def test_rollback_discards_the_push_with_its_cause(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Order.objects.create(number=1)
            push_to_key("alice", 1)
            raise ZeroDivisionError
        self.assertEqual((Order.objects.count(), Outbox.objects.count()), (0, 0))

    def test_call_in_transaction_of_another_database_raises(self):
        with transaction.atomic(using="other"), self.assertRaises(TransactionManagementError):
            push_to_key("alice", 1)
        self.assertFalse(Outbox.objects.exists())
        with transaction.atomic(using="other"), transaction.atomic():
            push_to_key("alice", 1)
        self.assertEqual(Outbox.objects.count(), 1)

    def test_using_names_the_database_whose_transaction_decides(self):
        with self.assertRaises(ImproperlyConfigured):
            push_to_key("alice", 1, using="other")
        with imgo(DATABASES=["default", "other"]):
            with transaction.atomic(using="other"):
                push_to_key("alice", 1, using="other")
            with self.assertRaises(ZeroDivisionError), transaction.atomic(using="other"):
                push_to_key("alice", 2, using="other")
                raise ZeroDivisionError
        self.assertEqual(Outbox.objects.using("other").count(), 1)
        self.assertFalse(Outbox.objects.exists())
