"""A database router that keeps the app's tables in another database than the project's."""

from io import StringIO

from django.core.management import call_command
from django.db import DatabaseError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import TransactionTestCase, override_settings

from imgo_client.django import push_to_key
from imgo_client.django.models import Delivery, Lane, Outbox
from imgo_client.django.receiving import once
from imgo_client.django.running import Runner
from imgo_client.django.testing import Pushes
from shop.models import Customer

from .base import ServerTestCase, imgo
from .test_setup import ids

elsewhere = override_settings(DATABASE_ROUTERS=["shop.routers.Elsewhere"])


@elsewhere
class RouterTests(ServerTestCase):
    """Both databases have the tables, so a query of the wrong one would find nothing there."""

    def tearDown(self):
        for model in (Outbox, Lane, Delivery):
            self.assertFalse(model.objects.using("default").exists(), model)

    def test_pushes_are_written_and_relayed_there(self):
        push_to_key("alice", 1)
        self.assertEqual(Outbox.objects.using("other").count(), 1)
        self.assertEqual([push.body for push in Pushes()], [1])
        runner = Runner(60)
        runner.drain()
        runner.close_http()
        self.assertEqual(self.server.bodies(), [1])

    def test_checks_find_nothing_and_status_names_the_database(self):
        self.assertEqual(ids(), [])
        push_to_key("alice", 1)
        out = StringIO()
        call_command("imgo_status", stdout=out)
        self.assertIn("outbox (other): 1 waiting", out.getvalue())
        self.assertNotIn("(default)", out.getvalue())

    def test_admin_lists_and_changes_rows_there(self):
        Customer.objects.create(code="root", is_staff=True)
        self.client.force_login(Customer.objects.get())
        push_to_key("alice", 1)
        Outbox.objects.using("other").park("No such key.")
        path = "/admin/imgo_client/outbox/"
        self.assertContains(self.client.get(path), "No such key.")
        chosen = {"_selected_action": [Outbox.objects.using("other").get().pk]}
        self.client.post(path, {"action": "send_again", **chosen})
        self.assertEqual(Outbox.objects.using("other").waiting().count(), 1)
        self.client.post(path, {"action": "delete_selected", "post": "yes", **chosen})
        self.assertFalse(Outbox.objects.using("other").exists())

    def test_ids_of_webhooks_are_kept_there(self):
        self.assertEqual(once("id1", lambda: 7), b"7")
        self.assertEqual(once("id1", lambda: 8), b"7")
        self.assertEqual(Delivery.objects.using("other").count(), 1)


class SeveralDatabasesTests(ServerTestCase):
    def test_database_that_fails_holds_no_other_up(self):
        def fail(*_):
            raise DatabaseError("It has gone.")

        with imgo(DATABASES=["default", "other"]):
            push_to_key("alice", 1, using="other")
            runner = Runner(60)
            with (
                connections["default"].execute_wrapper(fail),
                self.assertRaisesMessage(DatabaseError, "It has gone."),
            ):
                runner.drain()
            runner.close_http()
        self.assertEqual(self.server.bodies(), [1])


@elsewhere
class OtherTransactionTests(TransactionTestCase):
    databases = {"default", "other"}

    def test_push_within_the_projects_transaction_says_what_to_do(self):
        with (
            transaction.atomic(),
            self.assertRaisesMessage(TransactionManagementError, "give 'default' an outbox"),
        ):
            push_to_key("alice", 1)

    def test_push_in_a_transaction_of_its_own_outlives_the_outer_rollback(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Customer.objects.create(code="alice")
            with transaction.atomic(using="other"):
                push_to_key("alice", 1)
            raise ZeroDivisionError
        self.assertEqual(Outbox.objects.using("other").count(), 1)
        self.assertFalse(Customer.objects.exists())
