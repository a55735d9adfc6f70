"""Webhooks and hooks: signatures, repetitions, signals and answers."""

import base64
import json
import time
from datetime import datetime, timezone

from django.conf import settings
from django.test import Client, TestCase
from django.utils.timezone import make_naive

from imgo_client.django import signals
from imgo_client.django.models import Delivery
from imgo_client.django.signatures import BadSignature, sign, verify
from shop import hooks
from shop.models import Order

from .base import imgo

OLD = "whsec_" + base64.b64encode(b"the old secret of webhooks").decode()
NEW = "whsec_" + base64.b64encode(b"the new secret of webhooks").decode()
PATHS = {name.upper(): f"shop.hooks.{name}" for name in ("authenticate", "authorize", "receive")}
DELIVERED = {
    "type": "message.delivered",
    "timestamp": "2026-11-29T12:00:00Z",
    "data": {"key": "alice"},
}


class SignatureTests(TestCase):
    def test_example_of_the_specifications_libraries(self):
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        body = b'{"test": 2432232314}'
        signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
        self.assertEqual(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")

    def test_only_recent_requests_with_a_known_secret_are_accepted(self):
        now = int(time.time())

        def headers(secret=NEW, age=0, body=b"{}", webhook_id="id", prefix=""):
            return {
                "webhook-id": webhook_id,
                "webhook-timestamp": str(now - age),
                "webhook-signature": prefix + sign(secret, webhook_id, now - age, body),
            }

        for good in (
            headers(),
            headers(OLD),
            headers(age=290),
            headers(age=-290),
            headers(prefix="v1a,x v1,AAAA "),
        ):
            self.assertEqual(verify(good, b"{}", [OLD, NEW], 300), "id")
        for bad in (
            headers(age=310),
            headers(age=-310),
            headers(body=b"{ }"),
            headers("whsec_AAAA"),
            headers(webhook_id=""),
            {**headers(), "webhook-id": "another"},
            {**headers(), "webhook-timestamp": str(now - 1)},
            {**headers(), "webhook-timestamp": "soon"},
            {**headers(), "webhook-timestamp": "²"},
            {**headers(), "webhook-signature": ""},
            {**headers(), "webhook-signature": "v1,é"},
            {},
        ):
            with self.assertRaises(BadSignature):
                verify(bad, b"{}", [OLD, NEW], 300)
        with self.assertRaises(BadSignature):
            verify(headers(), b"{}", [], 300)


@imgo(WEBHOOK_SECRETS=[OLD, NEW], **PATHS)
class ReceivingTests(TestCase):
    def setUp(self):
        self.client = Client(enforce_csrf_checks=True)

    def post(self, path, value, webhook_id="id1", secret=NEW, age=0, *, slash="/"):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        now = int(time.time()) - age
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(secret, webhook_id, now, body),
        }
        return self.client.post(
            f"/imgo/{path}{slash}", body, content_type="application/json", headers=headers
        )

    def connect(self, signal, receiver):
        signal.connect(receiver)
        self.addCleanup(signal.disconnect, receiver)

    def test_every_event_has_a_signal(self):
        names = []
        for name, signal in signals.EVENTS.items():
            receiver = self._recorder(names, name)
            self.connect(signal, receiver)
        events = [{"type": name, "data": {}} for name in signals.EVENTS]
        self.assertEqual(self.post("webhook", {"events": events}).status_code, 204)
        self.assertEqual(names, list(signals.EVENTS))

    @staticmethod
    def _recorder(names, name):
        def receive(**_):
            names.append(name)

        return receive

    def test_repetition_is_answered_and_ignored(self):
        told = []

        def receive(**values):
            told.append(values)

        self.connect(signals.message_delivered, receive)
        for secret in (NEW, OLD, NEW):
            answer = self.post("webhook", DELIVERED, secret=secret)
            self.assertEqual((answer.status_code, answer.content), (204, b""))
        (values,) = told
        self.assertEqual((values["data"], values["webhook_id"]), ({"key": "alice"}, "id1"))
        moment = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)  # noqa: UP017 - Python 3.10
        wanted = moment if settings.USE_TZ else make_naive(moment)
        self.assertEqual(values["timestamp"], wanted)
        self.post("webhook", DELIVERED, "id2")
        self.assertEqual(len(told), 2)

    def test_failed_receiver_is_rolled_back_and_may_succeed_later(self):
        fail = [True]

        def receive(data, **_):
            Order.objects.create(number=1)
            if fail:
                raise ValueError(data)

        self.connect(signals.message_delivered, receive)
        self.client.raise_request_exception = False
        with self.assertLogs("django.request", "ERROR"):
            self.assertEqual(self.post("webhook", DELIVERED).status_code, 500)
        self.assertEqual((Order.objects.count(), Delivery.objects.count()), (0, 0))
        fail.clear()
        self.assertEqual(self.post("webhook", DELIVERED).status_code, 204)
        self.assertEqual(Order.objects.count(), 1)

    def test_malformed_and_unknown_events(self):
        no_data = {"type": "message.delivered"}
        for value in (b"no", b"[]", {}, no_data, {"events": {}}, {"events": [7]}):
            with self.assertLogs("django.request", "WARNING"):
                self.assertEqual(self.post("webhook", value).status_code, 400)
        with self.assertLogs("imgo_client.webhooks", "WARNING"):
            answer = self.post("webhook", {"type": "of.tomorrow", "data": {}, "timestamp": "bad"})
        self.assertEqual(answer.status_code, 204)

    def test_ping_is_confirmed_without_a_warning(self):
        with self.assertLogs("imgo_client.webhooks", "INFO") as logs:
            answer = self.post("webhook", {"events": [{"type": "ping", "data": {}}]})
        self.assertEqual(answer.status_code, 204)
        self.assertEqual([record.levelname for record in logs.records], ["INFO"])

    def test_unsigned_old_and_other_requests_are_refused(self):
        for answer in (
            self.post("webhook", DELIVERED, secret="whsec_AAAA"),
            self.post("hook/authorize", {}, secret="whsec_AAAA"),
            self.post("webhook", DELIVERED, age=400),
            self.client.post("/imgo/webhook/", DELIVERED, content_type="application/json"),
        ):
            self.assertEqual(answer.status_code, 401)
            self.assertEqual(answer.json()["code"], "bad_signature")
        self.assertEqual(self.client.get("/imgo/webhook/").status_code, 405)
        self.assertFalse(Delivery.objects.exists())

    def test_hooks_are_answered_by_the_named_functions(self):
        answer = self.post("hook/authenticate", {"token": "good"})
        wanted = {"key": "alice", "rooms": ["lobby"], "info": {"name": "Alice"}, "expires_in": 60}
        self.assertEqual(answer.json(), wanted)
        self.assertEqual(self.post("hook/authenticate", {"token": "bad"}).status_code, 403)
        self.client.raise_request_exception = False
        self.assertEqual(self.post("hook/authenticate", {"token": "buggy"}).status_code, 500)
        for room, is_allowed in (("lobby", True), ("cellar", False)):
            answer = self.post("hook/authorize", {"room": room, "key": "alice"})
            self.assertEqual(answer.json(), {"allowed": is_allowed})
        self.assertEqual(self.post("hook/other", {}).status_code, 404)
        with imgo(RECEIVE=""):
            self.assertEqual(self.post("hook/receive", {}).status_code, 404)

    def test_receive_hook_is_handled_once(self):
        del hooks.received[:]
        for _ in range(2):
            self.assertEqual(self.post("hook/receive", {"body": 1}).status_code, 204)
        self.client.raise_request_exception = False
        for _ in range(2):
            answer = self.post("hook/receive", {"fail": True}, "id2")
            self.assertEqual(answer.status_code, 500)
        self.assertEqual(hooks.received, [{"body": 1}, {"fail": True}, {"fail": True}])

    def test_receive_hooks_reply_is_the_functions_and_repeated(self):
        del hooks.received[:]
        for reply in ({"seat": 7, "n": "é\0"}, 0, [], "text"):
            for _ in range(2):
                answer = self.post("hook/receive", {"reply": reply}, f"id {reply}")
                self.assertEqual((answer.status_code, answer.json()), (200, reply))
                self.assertEqual(answer["Content-Type"], "application/json")
        self.assertEqual(len(hooks.received), 4)

    def test_receive_hook_that_refuses_carries_its_reason_and_is_rolled_back(self):
        reason = {"error": {"code": "sold_out", "message": "No seat is left."}}
        for _ in range(2):
            answer = self.post("hook/receive", {"refuse": True})
            self.assertEqual((answer.status_code, answer.json()), (400, reason))
        self.assertFalse(Order.objects.exists())
        self.assertFalse(Delivery.objects.exists())

    def test_addresses_without_a_slash_are_those_with_it(self):
        self.assertEqual(self.post("webhook", DELIVERED, slash="").status_code, 204)
        answer = self.post("hook/authorize", {"room": "lobby"}, slash="")
        self.assertEqual(answer.json(), {"allowed": True})
