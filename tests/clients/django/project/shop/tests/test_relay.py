"""The relay against a server that fails as a test says: nothing is lost, doubled or reordered."""

import threading
import time
from datetime import timedelta
from itertools import product
from uuid import uuid4

from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from imgo_client.django import cancel, push_to_all, push_to_key, push_to_keys, push_to_room, signals
from imgo_client.django.models import LANES, Delivery, Lane, Outbox, lane_of
from imgo_client.django.running import prune
from imgo_client.django.tasks import relay as relay_task

from .base import ServerTestCase, imgo, wait_until

KEYS = [f"key{number}" for number in range(40)]  # of all lanes
OTHER = next(key for key in KEYS if lane_of(key) != lane_of("refused"))


class DeliveryTests(ServerTestCase):
    def push_all(self, count=5, keys=KEYS):
        with transaction.atomic():
            for number in range(count):
                for key in keys:
                    push_to_key(key, number)

    def assert_all_arrived(self, count=5, keys=KEYS):
        for key in keys:
            self.assertEqual(self.server.bodies(key=key), list(range(count)))
        self.assertFalse(Outbox.objects.exists())

    def test_rows_arrive_once_and_in_order_and_are_deleted(self):
        self.push_all()
        push_to_room("lobby", "room")
        push_to_keys(["a", "b"], "keys")
        push_to_all("all")
        self.drain()
        self.assert_all_arrived()
        self.assertEqual(len(self.server.bodies()), 5 * len(KEYS) + 3)
        self.assertEqual(self.server.repeated, 0)
        self.assertEqual(Lane.objects.filter(owner="", until=None).count(), LANES)

    def test_cancel_is_sent_behind_its_push_and_after_the_commit(self):
        push_id = push_to_key("alice", 1)
        named = push_to_key("alice", 2, dedupe_id="order-7")
        with transaction.atomic():
            cancel(push_id)
            cancel(str(named))
            push_to_key("alice", 3)
            self.assertEqual(self.server.cancelled, [])
        self.drain()
        self.assertEqual(self.server.bodies(), [1, 2, 3])
        self.assertEqual(self.server.cancelled, [push_id.hex, "order-7"])
        cancel(named, dedupe_id="order-7")  # the push has left the outbox
        self.drain()
        self.assertEqual(self.server.cancelled[2:], ["order-7"])

    def test_cancel_of_an_unknown_push_is_dropped_and_one_that_fails_is_sent_again(self):
        cancel(uuid4())
        self.drain()
        push_id = push_to_key("alice", 1)
        self.drain()
        for status in (401, 404, 503, "cut"):
            with self.subTest(status=status):
                self.server.fault = lambda _, status=status: status
                cancel(push_id)
                with self.assertLogs("imgo_client.relay", "ERROR"):
                    self.make_relay().turn()
                self.assertEqual(Outbox.objects.get().parked_at, None)
                self.server.fault = lambda _: None
                self.drain()
        self.assertEqual(self.server.cancelled, [push_id.hex] * 4)
        with self.assertRaises(ValueError):
            cancel("no id")

    def test_turn_in_a_transaction_raises(self):
        with transaction.atomic(), self.assertRaises(RuntimeError):
            self.make_relay().turn()

    def test_refused_push_is_parked_and_later_ones_go_on(self):
        parked = []
        signals.push_parked.connect(
            lambda **values: parked.append(values), weak=False, dispatch_uid="t"
        )
        self.addCleanup(signals.push_parked.disconnect, dispatch_uid="t")
        refused = push_to_key("refused", 1)
        push_to_key(OTHER, 2)
        with self.assertLogs("imgo_client.relay", "ERROR"):
            self.make_relay().turn()
            self.drain()
        self.assertEqual(self.server.bodies(), [2])
        row = Outbox.objects.get()
        self.assertEqual((row.push_id, row.attempts), (refused.hex, 1))
        self.assertIn("No such key.", row.error)
        self.assertIsNotNone(row.parked_at)
        self.assertEqual([one["push_id"] for one in parked], [refused.hex])

    def test_failed_requests_park_nothing_and_keep_the_order(self):
        keys = KEYS[:5]
        for status in (401, 403, 404, 400, 429, 500, 502, 503, "cut"):
            with self.subTest(status=status):
                self.server.accepted.clear()
                self.push_all(2, keys)
                left = iter([status] * 3)
                self.server.fault = lambda pushes: next(left, None)  # noqa: B023
                with self.assertLogs("imgo_client.relay", "ERROR"):
                    self.drain()
                self.assert_all_arrived(2, keys)

    def test_unreachable_server_gets_everything_later(self):
        self.push_all(2)
        with imgo(URL="http://127.0.0.1:1", BACKOFF=(5, 10)):
            relay = self.make_relay()
            with self.assertLogs("imgo_client.relay", "ERROR"):
                while relay.turn():
                    pass
            self.assertGreater(relay.seconds_until_due(), 0)
        self.assertEqual(Outbox.objects.waiting().count(), 2 * len(KEYS))
        self.assertTrue(Outbox.objects.filter(attempts=1, error__contains="no answer").exists())
        self.drain()
        self.assert_all_arrived(2)

    def test_lane_that_fails_holds_no_other_lane_up(self):
        poison = lane_of("poison")
        push_to_key("poison", "poison")
        self.push_all(2)
        self.server.fault = lambda pushes: 500 if "poison" in str(pushes) else None
        stay = {key for key in KEYS if lane_of(key) == poison}
        relay = self.make_relay()

        def others_arrived():
            relay.turn()
            return all(self.server.bodies(key=key) == [0, 1] for key in KEYS if key not in stay)

        with self.assertLogs("imgo_client.relay", "ERROR"):
            wait_until(others_arrived, timeout=60)
            for _ in range(20):
                relay.turn()
                time.sleep(0.001)
        for key in KEYS:
            self.assertEqual(self.server.bodies(key=key), [] if key in stay else [0, 1])
        self.assertEqual(Outbox.objects.waiting().count(), 1 + 2 * len(stay))

    def test_request_that_is_too_large_is_halved(self):
        self.push_all(2)
        push_to_key("huge", "x" * 50)
        push_to_key("huge", "later")

        def fault(pushes):
            is_huge = any(push["body"] == "x" * 50 for push in pushes)
            return 413 if len(pushes) > 3 or is_huge else None

        self.server.fault = fault
        with self.assertLogs("imgo_client.relay", "ERROR"):
            self.drain()
        self.assertEqual(Outbox.objects.get().name, "huge")
        Outbox.objects.all().delete()
        self.assert_all_arrived(2)
        self.assertEqual(self.server.bodies(key="huge"), ["later"])

    def test_push_that_makes_a_request_unreadable_is_parked(self):
        """Half of a surrogate pair is JSON for Python; the server refuses the whole request."""
        self.push_all(2)
        push_to_key("unreadable", "x" * 50)
        push_to_key("unreadable", "later")
        self.server.fault = lambda pushes: 400 if "x" * 50 in str(pushes) else None
        with self.assertLogs("imgo_client.relay", "ERROR"):
            self.drain()
        self.assertEqual(Outbox.objects.get().name, "unreadable")
        Outbox.objects.all().delete()
        self.assert_all_arrived(2)
        self.assertEqual(self.server.bodies(key="unreadable"), ["later"])

    def test_damaged_row_is_parked(self):
        push_to_key("alice", 1)
        Outbox.objects.update(body=b"{")
        push_to_key("alice", 2)
        with self.assertLogs("imgo_client.relay", "ERROR"):
            self.drain()
        self.assertEqual(self.server.bodies(), [2])
        self.assertEqual(Outbox.objects.get().error, "The row is damaged.")

    def test_signal_tells_how_many_were_relayed_and_a_bad_receiver_is_logged(self):
        told = []

        def receive(count, oldest, using, **_):
            told.append((count, using))
            assert 0 <= oldest < 60
            raise ValueError

        signals.pushes_relayed.connect(receive)
        self.addCleanup(signals.pushes_relayed.disconnect, receive)
        push_to_key("alice", 1)
        with self.assertLogs("django.dispatch", "ERROR"):
            self.drain()
        self.assertEqual(told, [(1, "default")])

    def test_celery_task_sends_what_is_due(self):
        self.push_all(2)
        relay_task()
        self.assert_all_arrived(2)

    def test_each_database_has_its_own_outbox(self):
        with imgo(DATABASES=["default", "other"], URL=self.server.url):
            push_to_key("alice", 1)
            push_to_key("alice", 2, using="other")
            relay_task()
        self.assertEqual(sorted(self.server.bodies()), [1, 2])


class LeaseTests(ServerTestCase):
    def test_lane_of_another_relay_waits_until_its_lease_ends(self):
        push_to_key("alice", 1)
        Lane.objects.create_missing()
        self.assertEqual(Lane.objects.lease("another", [lane_of("alice")], 1.0), [lane_of("alice")])
        relay = self.make_relay()
        self.assertFalse(relay.turn())
        self.assertEqual(Lane.objects.lease("third", [lane_of("alice")], 1.0), [])
        wait_until(relay.turn)
        self.assertEqual(self.server.bodies(), [1])

    def test_owner_may_renew_and_release_only_its_own_lease(self):
        Lane.objects.create_missing()
        self.assertEqual(Lane.objects.lease("one", [1, 2], 60), [1, 2])
        self.assertEqual(sorted(Lane.objects.lease("one", [1, 2, 3], 60)), [1, 2, 3])
        self.assertEqual(Lane.objects.lease("two", [3, 4], 60), [4])
        self.assertEqual(Lane.objects.release("two", [3, 4]), 1)
        self.assertEqual(Lane.objects.get(number=3).owner, "one")

    def test_late_owner_repeats_only_what_the_server_ignores(self):
        for number in range(3):
            push_to_key("alice", number)
        other = self.make_relay()

        def pass_on(pushes):
            """While the first relay's request is under way, its lease ends."""
            self.server.fault = lambda _: None
            connections.close_all()
            Lane.objects.update(owner="", until=None)
            push_to_key("alice", 3)
            self.drain(other)
            connections.close_all()

        self.server.fault = pass_on
        self.drain()
        self.assertEqual(self.server.bodies(), [0, 1, 2, 3])
        self.assertEqual(self.server.repeated, 3)
        self.assertFalse(Outbox.objects.exists())

    def test_relay_that_was_stopped_for_long_sends_nothing(self):
        push_to_key("alice", 1)
        relay = self.make_relay()
        with imgo(URL=self.server.url, HTTP_TIMEOUT=1.0, LEASE=3.9):
            slow = self.make_relay()
        self.assertFalse(slow.turn())  # less is left than a request may take
        self.assertEqual(self.server.requests, [])
        self.drain(relay)

    def test_two_relays_at_once_share_the_work(self):
        count = 10
        with transaction.atomic():
            for number, key in product(range(count), KEYS):
                push_to_key(key, number)
        errors = []
        both_send = threading.Barrier(2, timeout=60)
        waiting = iter(range(2))  # requests that wait for the other relay's

        def wait_for_the_other(pushes):
            if next(waiting, None) is not None:
                both_send.wait()

        def work(relay):
            try:
                while relay.seconds_until_due() is not None:
                    relay.turn()
            except DatabaseError as error:
                errors.append(error)
            finally:
                connections.close_all()

        with imgo(BATCH=10, HTTP_TIMEOUT=60.0, LEASE=300.0):
            relays = [self.make_relay() for _ in range(2)]
        self.server.fault = wait_for_the_other
        threads = [threading.Thread(target=work, args=(relay,)) for relay in relays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        self.assertEqual(errors, [])
        for key in KEYS:
            self.assertEqual(self.server.bodies(key=key), list(range(count)))
        self.assertEqual(self.server.repeated, 0)
        self.assertFalse(both_send.broken)


class PruningTests(ServerTestCase):
    def test_old_parked_rows_and_webhook_ids_are_deleted(self):
        for body in ("old", "new", "waiting"):
            push_to_key("refused", body)
        rows = Outbox.objects.order_by("sequence")
        Outbox.objects.exclude(pk=rows[2].pk).park("refused")
        then = timezone.now() - timedelta(days=8)
        Outbox.objects.filter(pk__in=[rows[0].pk, rows[2].pk]).update(created_at=then)
        Outbox.objects.filter(pk=rows[0].pk).update(parked_at=then)
        Delivery.objects.create(webhook_id="old", received_at=then)
        Delivery.objects.create(webhook_id="new")
        self.assertEqual(prune(), 2)
        self.assertEqual(Outbox.objects.count(), 2)
        self.assertEqual(Delivery.objects.get().webhook_id, "new")
        Outbox.objects.parked().update(parked_at=then)
        with imgo(PARKED_KEEP=0):
            self.assertEqual(prune(), 0)
