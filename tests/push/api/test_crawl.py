"""Every page that can be reached by its links answers, and so does every mistake in an address."""

import re
from collections.abc import Iterator
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from accounts.models import ApiKey, Token
from offline.models import Event, Message, Outbox, Pending
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import push_to_key, push_to_room
from push.models import Node

LINK = re.compile(r"""(?:href|src|action)=["']([^"'>]+)""")
PAGES_MAX = 500  # a crawl that does not end is a mistake
MISTAKES = ("x", "-1", "99999999999999999999", "%00")
NONSENSE = (*MISTAKES, "", "0", "1.5", "%ff", "'", "é", "a" * 300)
MODELS = (Token, ApiKey, Message, Pending, Event, Outbox, Node)


@pytest.fixture
def rows(db) -> None:
    """At least one row of everything that the admin shows."""
    one = push_to_key("u1/é", {"n": 1})
    push_to_key("u2", 2)
    push_to_room("lobby", "text")
    record_receipts([Receipt(one, "u1/é", "received", "n1-1")])
    Outbox.objects.filter(message_id=one).update(parked_at="2026-01-01T00:00Z", error="broken")
    Token.objects.issue("u1")
    ApiKey.objects.issue("shop", ["push"])
    Node.objects.create(name="n1")
    assert all(model.objects.exists() for model in MODELS)


@pytest.fixture
def browser(rows, nodes, admin_client, imgo) -> Client:
    """Signed in, on the machine of the server, which has its demo on."""
    imgo(DEMO="on")
    admin_client.raise_request_exception = False
    admin_client.defaults["HTTP_HOST"] = "localhost"  # the demo has no other name
    return admin_client


def crawl(browser: Client, *starts: str) -> dict[str, int]:
    """The status of each page that links lead to, but for the way out."""
    found: dict[str, int] = {}
    waiting = list(starts)
    while waiting:
        page = waiting.pop()
        if page in found or page.startswith(("/static/", reverse("admin:logout"))):
            continue
        assert len(found) < PAGES_MAX
        answer = browser.get(page)
        found[page] = answer.status_code
        if "?" not in page or answer.status_code in {301, 302}:
            # A page of a list leads to as many as there are combinations of filters and orders.
            waiting += links(page, answer)
    return found


def links(page: str, answer) -> Iterator[str]:
    """The pages of this site that an answer leads to."""
    if answer.has_header("Location"):
        yield urljoin(page, answer["Location"])
    if not answer.streaming and "html" in answer.get("Content-Type", ""):
        for link in LINK.findall(answer.content.decode()):
            whole = urldefrag(urljoin(page, link.replace("&amp;", "&"))).url
            parts = urlsplit(whole)
            if not parts.netloc and not parts.scheme:
                yield whole


def test_every_page_answers(browser):
    found = crawl(browser, "/", "/admin/", "/api/docs/", "/api/schema/")
    for model in MODELS:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert found[reverse(f"{name}_changelist")] == 200
        row = model.objects.first()
        assert found[reverse(f"{name}_change", args=[row.pk])] == 200
    only_posted_to = {reverse("imgo:demo-push"), reverse("admin:logout")}
    forms_ask_with_a_name = {reverse("imgo:dashboard-key"), reverse("imgo:dashboard-room")}
    wrong = {page: status for page, status in found.items() if status >= 400}
    assert wrong.keys() <= only_posted_to | forms_ask_with_a_name
    assert {wrong[page] for page in forms_ask_with_a_name & wrong.keys()} <= {400, 404}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.long(but=["Token", "Node"])
def test_a_mistake_in_an_address_of_the_admin_is_no_fault_of_ours(browser, model):
    base = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    queries = ["p", "q", "o", "e", "all", "id", "_facets"]
    filters = ["audience__exact", "parked_at__isempty", "created_at__gte", "message__id"]
    for word in MISTAKES:
        for name in (*queries, *filters):
            address = f"{base}?{name}={word}"
            assert browser.get(address, follow=True).status_code in {200, 400}, address
        for address in (f"{base}{word}/", f"{base}{word}/change/", f"{base}{word}/history/"):
            assert browser.get(address, follow=True).status_code in {200, 404}, address


# The fields of a page's forms. What is pressed or chosen is only right or missing.
FIELD = re.compile(r"""<(?:input|select|textarea)[^>]* name=["']([^"']+)""")
CHOSEN = {"csrfmiddlewaretoken", "action", "index", "select_across", "_save", "_continue"}
FORMS = {
    "/admin/login/": {},
    "/admin/password_change/": {},
    "/admin/auth/user/": {"action": "delete_selected"},
    "/admin/auth/user/add/": {},
    "/admin/auth/user/{user}/change/": {},
    "/admin/auth/group/": {"action": "delete_selected"},
    "/admin/auth/group/add/": {},
    "/admin/accounts/token/": {"action": "revoke"},
    "/admin/accounts/token/add/": {},
    "/admin/accounts/token/{token}/change/": {},
    "/admin/accounts/apikey/": {"action": "revoke"},
    "/admin/accounts/apikey/add/": {},
    "/admin/accounts/apikey/{apikey}/change/": {},
    "/admin/offline/outbox/": {"action": "retry"},
    "/dashboard/act/push": {},
    "/dashboard/act/kick-key": {"confirmed": "1"},
    "/dashboard/act/kick-session": {"confirmed": "1"},
    "/dashboard/act/drain-node": {"confirmed": "1"},
    "/dashboard/act/revoke-token": {"confirmed": "1"},
}
TYPED = [*NONSENSE, "%00", '["\\ud800"]', "[" * 5000, "9999-12-31", "1e400", "٣"]
# A page takes a fifth of a second. All words are for the long set.
WORDS = pytest.mark.parametrize(
    "words",
    [
        pytest.param(("99999999999999999999", "%00", '["\\ud800"]'), id="some"),
        pytest.param(TYPED, id="all", marks=pytest.mark.long),
    ],
)


ALONE = ("_to_field", "_selected_action")  # one that is wrong hides all others


@WORDS
@pytest.mark.parametrize("page", FORMS)
def test_a_mistake_in_a_form_is_no_fault_of_ours(browser, page, words):
    Group.objects.create(name="operators")
    user = User.objects.create_user("somebody")
    rows = {"user": user, "token": Token.objects.get(), "apikey": ApiKey.objects.get()}
    pressed = FORMS[page]
    page = page.format(**{name: row.pk for name, row in rows.items()})
    fields = set(FIELD.findall(browser.get(page).content.decode())) - CHOSEN
    fields |= {"name", "key", "session", "node"}
    allowed = {200, 302, 400, 403, 404, 503}
    for word in words:
        for names in (fields, *({name} for name in ALONE)):
            data = urlencode({**dict.fromkeys(names, word), **pressed}).replace("%2500", "%00")
            kind = "application/x-www-form-urlencoded"
            answer = browser.generic("POST", page, data, content_type=kind)
            assert answer.status_code in allowed, data[:200]
    for body in (b"\xff\x00&=&%ff=%00", b"--x\r\n"):
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert browser.generic("POST", page, body, content_type=kind).status_code in allowed


@pytest.mark.parametrize("name", ["auth/user", "auth/group", "accounts/token", "push/node"])
@WORDS
def test_no_address_of_the_admin_asks_too_much(browser, name, words):
    pk = {"accounts/token": Token, "push/node": Node}.get(name, User).objects.latest("pk").pk
    Group.objects.create(pk=pk, name="operators")
    for lookup in ("date_joined__year", "last_login__year", "username__regex", "name__regex"):
        for word in words:
            query = urlencode({lookup: word})
            assert browser.get(f"/admin/{name}/?{query}", follow=True).status_code == 200, query
    for word in words:
        query = urlencode({"_to_field": word})
        for page in ("", f"{pk}/change/", f"{pk}/delete/"):
            status = browser.get(f"/admin/{name}/{page}?{query}", follow=True).status_code
            assert status in {200, 400, 403}, (page, query)


PAGED = (
    "/api/v1/rooms",
    "/api/v1/rooms/lobby",
    "/api/v1/tokens",
    "/api/v1/pushes/{id}",
)


@pytest.mark.parametrize("path", PAGED)
@pytest.mark.parametrize("name", ["limit", "offset"])
def test_a_wrong_page_of_the_api_is_told(api, rows, nodes, path, name):
    nodes.open("s1", "u1", "lobby")
    path = path.format(id=Message.objects.latest("pk").pk)
    for word in set(NONSENSE) - {"0"}:
        answer = api.get(f"{path}?{name}={word}")
        assert answer.status_code == 400, word
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"].startswith(f"{name} must be a whole number from ")
    assert api.get(f"{path}?{name}=1").status_code == 200


@pytest.mark.parametrize("path", ["pushes", "keys", "rooms", "tokens"])
def test_a_wrong_name_in_an_address_of_the_api_is_told(api, rows, nodes, path):
    for word in set(NONSENSE) - {""}:
        answer = api.get(f"/api/v1/{path}/{word}")
        assert answer.status_code in ({200, 400, 404} if path == "keys" else {400, 404}), word
        if answer.status_code != 200:
            assert answer["Content-Type"] == "application/problem+json"
            assert answer.json()["detail"]


def test_what_there_is_not_is_told(client):
    for path in ("/api/", "/api/v1/", "/api/v1/pushes/", "/api/v2/pushes", "/api/docs/x"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"There is nothing at {path}."


def test_a_host_that_is_not_ours_is_told_in_the_shape_of_the_path(client):
    def ask(path):
        answer = client.get(path, headers={"host": "elsewhere.example"})
        assert answer.status_code == 400
        return answer

    problem = ask("/api/v1/stats")
    assert problem["Content-Type"] == "application/problem+json"
    assert "DJANGO_ALLOWED_HOSTS" in problem.json()["detail"]
    imgos = ask("/1/push").json()
    assert imgos["ret"] == 65534
    assert "DJANGO_ALLOWED_HOSTS" in imgos["message"]
    assert b"DJANGO_ALLOWED_HOSTS" in ask("/admin/").content
