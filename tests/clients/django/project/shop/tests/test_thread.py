"""The relay's thread: when it starts, what it holds, and how it ends."""

import threading
from unittest import mock

from django.db import connection, connections, transaction
from django.test import TransactionTestCase

from imgo_client.django import push_to_key, waking
from imgo_client.django.models import Outbox
from imgo_client.django.running import Runner

from .base import QUICK, ServerTestCase, imgo, wait_until


def threads():
    return [one for one in threading.enumerate() if one.name == "imgo-relay"]


class ThreadTests(ServerTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(lambda: waking.relay_thread.stop(5))

    def test_commit_in_tests_starts_no_thread(self):
        with transaction.atomic():
            push_to_key("alice", 1)
        self.assertEqual(threads(), [])

    def test_first_commit_starts_the_thread_and_later_ones_wake_it(self):
        with imgo(URL=self.server.url, RELAY_IN_TESTS=True, **QUICK):
            with transaction.atomic():
                push_to_key("alice", 1)
                self.assertEqual(threads(), [])
            wait_until(lambda: self.server.bodies() == [1])
            (thread,) = threads()
            for number in range(2, 20):
                push_to_key("alice", number)
            wait_until(lambda: self.server.bodies() == list(range(1, 20)))
            self.assertEqual(threads(), [thread])
            wait_until(lambda: not Outbox.objects.exists())
            waking.relay_thread.stop(5)
        self.assertEqual(threads(), [])

    def test_other_relays_are_not_started_as_threads(self):
        with imgo(RELAY="none", RELAY_IN_TESTS=True):
            push_to_key("alice", 1)
        self.assertEqual(threads(), [])

    def test_idle_runner_closes_its_database_connection(self):
        opened, closed = [], []
        runner = Runner(60, linger=0.05)

        def run():
            own = connections["default"]
            close = own.close
            own.close = lambda: (closed.append(own.connection is not None), close())
            own.execute_wrappers.append(lambda execute, *rest: opened.append(1) or execute(*rest))
            runner.run()

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: opened and any(closed))
        del closed[:], opened[:]
        push_to_key("alice", 1)
        runner.wake()
        wait_until(lambda: any(closed))
        self.assertEqual(self.server.bodies(), [1])
        runner.stop(5)
        thread.join(10)
        self.assertFalse(thread.is_alive())

    def test_stop_sends_what_was_committed_just_before(self):
        runner = Runner(60)
        push_to_key("alice", 1)
        runner.stop(5)
        runner.run()
        self.assertEqual(self.server.bodies(), [1])

    def test_runner_survives_a_missing_table(self):
        runner = Runner(60)
        with connection.schema_editor() as editor:
            editor.alter_db_table(Outbox, "imgo_client_outbox", "elsewhere")
        try:
            thread = threading.Thread(target=runner.run)
            with self.assertLogs("imgo_client.relay", "ERROR"):
                thread.start()
                wait_until(lambda: runner._failures > 0)
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(Outbox, "elsewhere", "imgo_client_outbox")
        push_to_key("alice", 1)
        wait_until(lambda: self.server.bodies() == [1])
        runner.stop(5)
        thread.join(10)

    def test_wrong_settings_are_logged_without_a_traceback(self):
        """Servers such as gunicorn run no system checks."""
        push_to_key("alice", 1)
        for wrong in ({"URL": ""}, {"API_KEY": ""}, {"HTTP": {"verifi": 1}}):
            runner = Runner(60)
            runner.stop(5)
            with imgo(**wrong), self.assertLogs("imgo_client.relay", "ERROR") as found:
                runner.run()
            (record,) = found.records
            self.assertIsNone(record.exc_info)
            self.assertIn("Run manage.py check.", record.getMessage())
        self.assertTrue(Outbox.objects.exists())


class Requests:
    """Instead of the Celery task: notes when it is requested."""

    def __init__(self):
        self.count = 0
        self.gate = threading.Event()
        self.error = None

    def apply_async(self, retry):
        self.count += 1
        self.gate.wait(20)
        if self.error:
            raise self.error


class TaskRequestTests(ServerTestCase):
    def setUp(self):
        super().setUp()
        options = imgo(RELAY="celery", RELAY_IN_TESTS=True)
        options.enable()
        self.addCleanup(options.disable)
        self.requests = Requests()
        patch = mock.patch("imgo_client.django.tasks.relay", self.requests)
        patch.start()
        self.addCleanup(patch.stop)
        self.addCleanup(lambda: waking.relay_thread.stop(5))
        self.addCleanup(self.requests.gate.set)

    def test_commit_does_not_wait_for_the_broker_and_later_ones_share_a_request(self):
        with transaction.atomic():
            push_to_key("alice", 1)
            push_to_key("alice", 2)
        wait_until(lambda: self.requests.count == 1)
        for number in range(20):
            push_to_key("alice", number)
        self.assertEqual(self.requests.count, 1)
        self.requests.gate.set()
        wait_until(lambda: self.requests.count == 2)
        waking.relay_thread.stop(5)
        self.assertEqual((self.requests.count, threads()), (2, []))

    def test_request_that_fails_is_logged_and_the_next_commit_makes_another(self):
        self.requests.error = ConnectionError("no broker")
        self.requests.gate.set()
        for count in (1, 2):
            with self.assertLogs("imgo_client.relay", "ERROR") as logs:
                push_to_key("alice", 1)
                wait_until(lambda: logs.output)
            self.assertEqual(self.requests.count, count)
        self.assertIn("no broker", str(logs.output))


class WakeTests(TransactionTestCase):
    def test_transaction_wakes_the_relay_once(self):
        with transaction.atomic():
            push_to_key("alice", 1)
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                push_to_key("alice", 2)
                raise ZeroDivisionError
            self.assertEqual(len(connection.run_on_commit), 1)

    def test_savepoint_that_is_rolled_back_takes_no_wake_of_others(self):
        with transaction.atomic():
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                push_to_key("alice", 1)
                raise ZeroDivisionError
            self.assertEqual(connection.run_on_commit, [])
            with transaction.atomic():
                push_to_key("alice", 2)
            push_to_key("alice", 3)
            self.assertEqual(len(connection.run_on_commit), 1)
