"""Options, system checks, the admin, and the helpers for tests."""

import sqlite3
import tempfile
import unittest

from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.utils import ConnectionHandler
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import timezone

from imgo_client.django import push_to_all, push_to_key, push_to_keys
from imgo_client.django.conf import NAMES, options
from imgo_client.django.models import Outbox
from imgo_client.django.testing import PushAssertions
from shop.models import Customer

from .base import imgo

GOOD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class NoOutboxRouter:
    def allow_migrate(self, db, app_label, **hints):
        return app_label != "imgo_client"


def ids():
    """Return the ids of our own checks' messages."""
    return [one.id for one in run_checks() if one.id.startswith("imgo_client.")]


class CheckTests(SimpleTestCase):
    def test_good_options_have_no_message(self):
        with imgo(
            TOKEN_SECRET="s" * 32, WEBHOOK_SECRETS=[GOOD], BACKOFF=[1, 2], LEASE=50, POLL=0.5
        ):
            self.assertEqual(ids(), [])
            self.assertEqual(options().WEBHOOK_SECRETS, (GOOD,))

    def test_unknown_and_malformed_options_are_errors(self):
        for bad in (
            {"URI": "http://localhost"},
            {"URL": "localhost:8000"},
            {"URL": "ftp://localhost"},
            {"URL": 7},
            {"URL": "http://localhost:port"},
            {"URL": "http://localhost:99999"},
            {"URL": "http://["},
            {"API_KEY": "from-a-file\n"},
            {"API_KEY": "schlüssel"},
            {"TOKEN_KEY": ""},
            {"SOCKET_URL": "http://localhost"},
            {"TOKEN_SECRET": "short"},
            {"TOKEN_TTL": 0},
            {"TOKEN_TTL": 1.5},
            {"LEASE": True},
            {"LEASE": float("inf")},
            {"BATCH": 501},
            {"BACKOFF": (2, 1)},
            {"BACKOFF": 1},
            {"RELAY": "cron"},
            {"RELAY_IN_TESTS": 1},
            {"DATABASES": "default"},
            {"WEBHOOK_SECRETS": ["whsec_"]},
            {"WEBHOOK_SECRETS": ["whsec_!"]},
            {"WEBHOOK_SECRETS": [GOOD[6:]]},
            {"HTTP": []},
        ):
            with imgo(**bad):
                self.assertEqual(ids(), ["imgo_client.E001"], bad)
                with self.assertRaisesMessage(ImproperlyConfigured, next(iter(bad))):
                    options()
        with override_settings(IMGO_CLIENT=[]):
            self.assertEqual(ids(), ["imgo_client.E001"])
            with self.assertRaisesMessage(ImproperlyConfigured, "IMGO_CLIENT must be a dict"):
                options()

    def test_each_other_mistake_has_its_message(self):
        for number, change in (
            ("E002", {"URL": ""}),
            ("E002", {"API_KEY": ""}),
            ("E003", {"LEASE": 40.0}),
            ("E004", {"TOKEN_KEY": "shop.hooks.nothing"}),
            ("E004", {"AUTHORIZE": "shop.hooks.not_a_function"}),
            ("E005", {"DATABASES": ["default", "nowhere"]}),
            ("E007", {"HTTP": {"verifi": False}}),
            ("E007", {"HTTP": {"timeout": 3}}),
            ("W001", {"URL": "http://push.example.org"}),
        ):
            with imgo(**change):
                self.assertEqual(ids(), [f"imgo_client.{number}"], change)
        with override_settings(DATABASE_ROUTERS=["shop.tests.test_setup.NoOutboxRouter"]):
            self.assertEqual(ids(), ["imgo_client.E006"])

    def test_missing_urls_are_a_warning_if_an_option_needs_them(self):
        with override_settings(
            ROOT_URLCONF="shop.urls_without", SILENCED_SYSTEM_CHECKS=["admin.E408"]
        ):
            self.assertEqual(ids(), [])
            with imgo(TOKEN_SECRET="s" * 32):
                self.assertEqual(ids(), ["imgo_client.W002"])

    def test_settings_are_read_lazily_and_every_option_has_a_text(self):
        with imgo(TOKEN_TTL=7):
            self.assertEqual(options().TOKEN_TTL, 7)
        self.assertEqual(options().TOKEN_TTL, 300)
        for name in NAMES:
            self.assertTrue(type(options()).__dataclass_fields__[name].metadata["doc"], name)


class AdminTests(TestCase):
    def setUp(self):
        Customer.objects.create(code="root", is_staff=True)
        self.client.force_login(Customer.objects.get())
        push_to_key("alice", {"text": "<b>"})
        push_to_key("bob", 2)
        Outbox.objects.filter(name="alice").park("No such key.")
        self.row = Outbox.objects.get(name="alice")
        self.list = "/admin/imgo_client/outbox/"

    def test_list_and_page_of_a_push(self):
        self.assertContains(self.client.get(self.list), "No such key.")
        self.assertNotContains(self.client.get(self.list, {"state": "waiting"}), "alice")
        self.assertNotContains(self.client.get(self.list, {"state": "parked"}), "bob")
        page = self.client.get(f"{self.list}{self.row.pk}/change/")
        self.assertContains(page, "&lt;b&gt;")
        self.assertEqual(self.client.get(f"{self.list}add/").status_code, 403)

    def test_parked_push_is_sent_again_or_deleted(self):
        every = {"_selected_action": [row.pk for row in Outbox.objects.all()]}
        answer = self.client.post(self.list, {"action": "send_again", **every}, follow=True)
        self.assertContains(answer, "1 pushes will be sent again.")
        self.assertEqual(Outbox.objects.waiting().count(), 2)
        self.client.post(self.list, {"action": "delete_selected", "post": "yes", **every})
        self.assertFalse(Outbox.objects.exists())


class PushAssertionTests(PushAssertions, TestCase):
    def test_pushes_are_in_a_list_and_those_rolled_back_are_not(self):
        self.assertNotPushed()
        with transaction.atomic():
            push_id = push_to_key("alice", {"n": 1}, ttl=5)
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            push_to_all("never")
            raise ZeroDivisionError
        push_to_keys(["a", "b"], 2, store=False)
        one, two = self.pushes
        self.assertEqual((one.id, one.body, one.key, one.ttl), (push_id, {"n": 1}, "alice", 5))
        self.assertEqual((two.keys, two.store, two.room, two.all), (("a", "b"), False, None, False))
        self.assertEqual(self.pushes[-1:], [two])
        self.assertEqual(self.pushes, [one, two])
        self.assertEqual(self.assertPushed({"n": 1}, key="alice"), [one])
        self.assertPushed(count=2)
        self.assertNotPushed("never")
        for call in (
            lambda: self.assertPushed(3),
            lambda: self.assertPushed(2, count=2),
            lambda: self.assertNotPushed(keys=("a", "b")),
        ):
            with self.assertRaises(AssertionError):
                call()
        with self.assertRaises(TypeError):
            self.assertPushed(room_name="lobby")
        self.pushes.clear()
        self.assertEqual(len(self.pushes), 0)


class SqliteBackendTests(unittest.TestCase):
    def test_transaction_keeps_other_writers_out_from_its_beginning(self):
        with tempfile.TemporaryDirectory() as home:
            database = {"ENGINE": "imgo_client.django.sqlite3", "NAME": f"{home}/db.sqlite3"}
            own = ConnectionHandler({"default": database})["default"]
            own.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
            other = sqlite3.connect(database["NAME"], timeout=0, isolation_level=None)
            with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
                other.execute("BEGIN IMMEDIATE")
            own.rollback()
            other.execute("BEGIN IMMEDIATE")
            other.close()
            own.close()


class MigrationTests(TestCase):
    def test_row_times_are_the_projects(self):
        push_to_key("alice", 1)
        row = Outbox.objects.get()
        self.assertEqual(timezone.is_aware(row.created_at), settings.USE_TZ)

    @unittest.skipUnless(connection.vendor == "postgresql", "plans differ")
    def test_due_rows_are_found_by_the_index(self):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
        plan = Outbox.objects.waiting().filter(lane=3).order_by("sequence")[:1].explain()
        self.assertIn("imgo_client_due", plan)
