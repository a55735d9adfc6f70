"""What several tests need: options for one test, and a server."""

import time

from django.conf import settings
from django.contrib.auth.management import create_permissions
from django.db.models.signals import post_migrate
from django.test import TransactionTestCase, override_settings

from imgo_client.django.relay import Relay
from shop.server import Server

QUICK = {"HTTP_TIMEOUT": 1.0, "LEASE": 5.0, "BACKOFF": (0.001, 0.002), "POLL": 0.01}


def imgo(**options):
    """Decorate a test, or open a context, with other options."""
    return override_settings(IMGO_CLIENT={**settings.IMGO_CLIENT, **options})


def wait_until(check, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not (found := check()):
        assert time.monotonic() < deadline, check
        time.sleep(0.01)
    return found


class ServerTestCase(TransactionTestCase):
    """Each test has a server, and relays to it."""

    databases = {"default", "other"}

    @classmethod
    def setUpClass(cls):
        # Django makes all permissions anew after each test, which takes as long as these tests.
        post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        post_migrate.connect(
            create_permissions, dispatch_uid="django.contrib.auth.management.create_permissions"
        )

    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)
        options = imgo(URL=self.server.url, **QUICK)
        options.enable()
        self.addCleanup(options.disable)

    def make_relay(self, using="default"):
        relay = Relay(using)
        self.addCleanup(relay.close)
        return relay

    def drain(self, relay=None, rounds=200):
        """Let a relay work until it has nothing to do."""
        relay = relay or self.make_relay()
        for _ in range(rounds):
            while relay.turn():
                pass
            if (wait := relay.seconds_until_due()) is None:
                return
            time.sleep(wait)
        raise AssertionError("the outbox does not get empty")
