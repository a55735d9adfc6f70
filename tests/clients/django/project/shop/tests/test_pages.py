"""The template tag, and the view that gives its script a token."""

import base64
import hashlib
import hmac
import json
import re
import time

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Template
from django.test import Client, RequestFactory, TestCase

from imgo_client.django.conf import options
from imgo_client.django.tokens import sign
from shop.models import Customer

from .base import imgo

SECRET = "a secret that the server knows as JWT_SECRET"
SAME = {"Sec-Fetch-Site": "same-origin"}


def claims_of(token):
    """Return the claims of a token, whose signature is right."""
    signed, _, signature = token.rpartition(".")
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    assert signature == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    header, claims = (json.loads(base64.urlsafe_b64decode(f"{p}==")) for p in signed.split("."))
    assert header == {"alg": "HS256", "typ": "JWT"}
    return claims


@imgo(TOKEN_SECRET=SECRET, URL="https://push.example.org")
class TagTests(TestCase):
    def render(self, user, source="{% imgo %}"):
        request = RequestFactory().get("/")
        request.user = user
        return Template("{% load imgo %}" + source).render(Context({"request": request}))

    def test_visitor_gets_nothing(self):
        self.assertEqual(self.render(AnonymousUser()), "")

    def test_signed_in_user_gets_the_script_and_no_token(self):
        user = Customer.objects.create(code="alice")
        html = self.render(user, "{% imgo rooms='a, b\"<' nonce='n1' %}")
        self.assertRegex(
            html, '^<script type="module" src="/static/imgo_client/page.js" [^<>]+></script>$'
        )
        data = dict(re.findall(r' ([a-z-]+)="([^"]*)"', html))
        self.assertEqual(data["data-imgo-script"], "https://push.example.org/static/push/imgo.js")
        self.assertEqual(data["data-imgo-socket"], "wss://push.example.org/sub")
        self.assertEqual(data["data-imgo-token-url"], "/imgo/token/")
        self.assertEqual(data["data-imgo-name"], str(user.pk))
        self.assertEqual(data["data-imgo-rooms"], "[&quot;a&quot;, &quot;b\\&quot;&lt;&quot;]")
        self.assertEqual(data["nonce"], "n1")

    def test_tabs_share_a_connection_over_the_chosen_transports(self):
        user = Customer.objects.create(code="alice")
        html = self.render(user, "{% imgo share=True transports='sse,websocket' %}")
        self.assertIn(f' data-imgo-share="{user.pk}"', html)
        self.assertIn(' data-imgo-transports="sse,websocket"', html)
        with self.assertRaisesMessage(ValueError, "websocket and sse, not 'tcp'"):
            self.render(user, "{% imgo transports='tcp' %}")

    def test_argument_that_cannot_be_is_a_mistake_with_an_example(self):
        user = Customer.objects.create(code="alice")
        for arguments, text in (
            ("transports=','", "not ',': write transports=\"websocket,sse\""),
            ("transports=5", 'such as transports="websocket,sse", not 5'),
            ("rooms=5", 'such as rooms="lobby,news", not 5'),
            ("share=''", "not '': write share=True"),
        ):
            with self.subTest(arguments), self.assertRaisesMessage(ValueError, text):
                self.render(user, f"{{% imgo {arguments} %}}")

    def test_addresses_can_be_others(self):
        user = Customer.objects.create(code="alice")
        with imgo(SOCKET_URL="wss://ws.example.org/x", SCRIPT_URL="/static/imgo.js"):
            self.assertEqual(options().socket_url, "wss://ws.example.org/x")
            self.assertIn('data-imgo-script="/static/imgo.js"', self.render(user))


@imgo(TOKEN_SECRET=SECRET)
class TokenTests(TestCase):
    def setUp(self):
        self.user = Customer.objects.create(code="alice")
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(self.user)

    def post(self, **headers):
        return self.client.post("/imgo/token/", headers=headers)

    def test_signed_in_user_gets_a_short_lived_token(self):
        answer = self.post(**SAME)
        self.assertEqual((answer.status_code, answer.json()["expires_in"]), (200, 300))
        self.assertIn("no-store", answer["Cache-Control"])
        claims = claims_of(answer.json()["token"])
        self.assertLess(abs(claims["iat"] - time.time()), 30)
        wanted = {"sub": str(self.user.pk), "iat": claims["iat"], "exp": claims["iat"] + 300}
        self.assertEqual(claims, wanted)

    def test_options_decide_key_rooms_info_issuer_and_audience(self):
        paths = {"TOKEN_KEY": "shop.hooks.code_of", "TOKEN_ROOMS": "shop.hooks.rooms_of"}
        paths["TOKEN_INFO"] = "shop.hooks.info_of"
        with imgo(TOKEN_SECRET=SECRET, TOKEN_ISSUER="shop", TOKEN_AUDIENCE="imgo", **paths):
            claims = claims_of(self.post(**SAME).json()["token"])
        self.assertEqual(claims["sub"], "customer-alice")
        self.assertEqual(claims["rooms"], ["lobby", "private-alice-*"])
        self.assertEqual(claims["info"], {"name": "Alice"})
        self.assertEqual((claims["iss"], claims["aud"]), ("shop", "imgo"))

    def test_one_string_instead_of_rooms_is_refused(self):
        with (
            imgo(TOKEN_SECRET=SECRET, TOKEN_ROOMS="shop.hooks.code_of"),
            self.assertRaisesMessage(TypeError, "must return a list of rooms, not 'customer-"),
        ):
            self.post(**SAME)

    def test_text_instead_of_an_info_is_refused(self):
        with (
            imgo(TOKEN_SECRET=SECRET, TOKEN_INFO="shop.hooks.code_of"),
            self.assertRaisesMessage(TypeError, "must return a dictionary or None, not 'customer-"),
        ):
            self.post(**SAME)

    def test_only_pages_of_this_site_get_one(self):
        for headers in (
            {},
            {"Origin": "https://evil.example.org"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
        ):
            self.assertEqual(self.post(**headers).status_code, 403, headers)
        self.assertEqual(self.post(Origin="https://testserver").status_code, 200)

    def test_others_are_answered_without_a_redirect(self):
        self.assertEqual(self.client.get("/imgo/token/").status_code, 405)
        Customer.objects.update(is_active=False)
        self.assertEqual(self.post(**SAME).status_code, 401)
        self.client.logout()
        self.assertEqual(self.post(**SAME).status_code, 401)

    def test_token_without_a_secret_is_a_mistake(self):
        with imgo(TOKEN_SECRET=""), self.assertRaises(ImproperlyConfigured):
            sign("alice")
