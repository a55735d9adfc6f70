"""The relay's thread: when it starts, what it holds, and how it ends."""

import threading

from django.db import connection, connections, transaction

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
