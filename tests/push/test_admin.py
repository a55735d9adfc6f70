"""The admin's lists: few queries however many rows, no scan of a table, and what they can do."""

import re
from datetime import UTC, datetime
from unittest.mock import MagicMock

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import ApiKey, Token
from imgo_site import admin_tables, estimates, replica
from offline.admin import OutboxAdmin
from offline.models import RECEIVED, Event, KeyDevice, Message, Outbox, Pending
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import Push, accept_pushes, push_to_keys
from push.bus.group_names import key_group
from push.models import Device, Node, WebhookBatch
from push.webhooks.endpoints import ROOM_MARK
from push.wire import CloseCode
from tests import in_thread

pytestmark = [pytest.mark.django_db]

LISTS = [
    "accounts/token", "accounts/apikey", "offline/message", "offline/pending", "offline/event",
    "offline/outbox", "offline/keydevice", "push/node", "push/webhookbatch", "push/device",
    "admin/logentry",
]  # fmt: skip


@pytest.fixture
def browser() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("root", is_staff=True, is_superuser=True))
    return client


def add_rows(count: int) -> None:
    ids = accept_pushes([Push(b"1" * 1000, keys=(f"u{n}", "all")) for n in range(count)])
    record_receipts([Receipt(one, "all", RECEIVED, "n1-1") for one in ids])
    Token.objects.bulk_create(
        Token(key=f"u{n}-{ids[0]}", digest=f"{n}-{ids[0]}") for n in range(count)
    )
    ApiKey.objects.bulk_create(ApiKey(name="k", digest=f"{n}-{ids[0]}") for n in range(count))
    by, kind = User.objects.earliest("pk"), ContentType.objects.get_for_model(Node)
    LogEntry.objects.bulk_create(
        LogEntry(user=by, content_type=kind, object_id=n, object_repr="n", action_flag=CHANGE)
        for n in range(count)
    )
    Node.objects.bulk_create(Node(name=f"n{n}-{ids[0]}") for n in range(count))
    Device.objects.bulk_create(
        Device(key="u", provider="fcm", address="secret-token", digest=f"{n}-{ids[0]}")
        for n in range(count)
    )
    KeyDevice.objects.bulk_create(
        KeyDevice(key=f"u{n}-{ids[0]}", name="phone", seen_at=timezone.now()) for n in range(count)
    )
    WebhookBatch.objects.bulk_create(
        WebhookBatch(endpoint="u", body="[]", keys=["u"], size=1, give_up_at=timezone.now())
        for n in range(count)
    )


def queries_of(browser: Client, path: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        answer = browser.get(f"/admin/{path}")
    assert answer.status_code == 200
    return [query["sql"] for query in queries]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.any_database
def test_a_list_takes_as_many_queries_for_many_rows_as_for_few(browser, name):
    add_rows(2)
    few = queries_of(browser, f"{name}/")
    add_rows(20)
    many = queries_of(browser, f"{name}/")
    assert len(many) == len(few) <= 6
    assert not any('"body"' in sql for sql in many)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_never_counts_all_rows(browser, name):
    add_rows(1)
    counts = [sql for sql in queries_of(browser, f"{name}/") if "COUNT(" in sql]
    assert counts
    assert all(f"LIMIT {estimates.EXACT_MAX + 1}" in sql for sql in counts)


@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("offline/message/?q=7", "offline_message_pkey"),
        ("offline/pending/?q=u7", "offline_pending"),
        ("offline/event/?q=u7", "event_key"),
        ("offline/outbox/?parked=yes", "outbox_parked"),
        ("offline/keydevice/?q=u7", "key_device_once"),
        ("accounts/token/?q=u7", "accounts_token_key"),
        ("accounts/apikey/?q=k", "apikey_name"),
        ("push/node/?q=n7", "push_node_name"),
    ],
)
def test_a_search_uses_an_index(browser, path, index):
    add_rows(3)
    Node.objects.bulk_create(Node(name=str(n)) for n in range(1000))
    Token.objects.bulk_create(Token(key=f"u{n}", digest=str(n)) for n in range(7, 1007))
    ApiKey.objects.bulk_create(ApiKey(name=f"a{n}", digest=str(n)) for n in range(1000))
    with connection.cursor() as cursor:
        # Of a page of rows any index is as good.
        cursor.execute("ANALYZE push_node, accounts_token, accounts_apikey")
        cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in queries_of(browser, path)[2:]:  # after the session and the user
            cursor.execute(f"EXPLAIN {sql}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Seq Scan" not in plan
    assert re.search(rf"Index.* {index}|Index Cond", plan), plan


def test_the_events_of_a_message_are_not_sorted_for_its_first_page(browser):
    add_rows(3)
    one = Message.objects.latest("pk").pk
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")  # where there is another way
        for sql in queries_of(browser, f"offline/event/?q={one}")[2:]:
            cursor.execute(f"EXPLAIN {sql}")
            assert "Sort Key: message_id" not in "".join(row[0] for row in cursor.fetchall())


@pytest.mark.any_database
def test_rows_of_one_key_come_newest_first_and_of_one_message_by_key(browser):
    add_rows(3)
    ids = list(Message.objects.order_by("-pk").values_list("pk", flat=True))
    found = browser.get("/admin/offline/pending/?q=u1").context["cl"].result_list
    assert [row.message_id for row in found] == [ids[1]]
    found = browser.get("/admin/offline/event/?q=all").context["cl"].result_list
    assert [row.message_id for row in found] == ids
    push_to_keys(["c", "a", "b"], 1)
    one = Message.objects.latest("pk").pk
    found = browser.get(f"/admin/offline/pending/?q={one}").context["cl"].result_list
    assert [row.key for row in found] == ["a", "b", "c"]


@pytest.mark.any_database
def test_a_number_that_is_a_key_and_a_message_finds_the_rows_of_both(browser):
    first = push_to_keys(["a", "b"], 1)
    push_to_keys([str(first)], 2)
    found = browser.get(f"/admin/offline/pending/?q={first}").context["cl"].result_list
    assert [row.key for row in found] == [str(first), "b", "a"]


def test_times_are_told_to_the_second(browser):
    Node.objects.create(name="n", last_seen=datetime(2026, 1, 2, 15, 4, 5, tzinfo=UTC))
    assert "2026-01-02 15:04:05" in browser.get("/admin/push/node/").content.decode()


@pytest.mark.any_database
@pytest.mark.parametrize("name", LISTS)
def test_no_address_sorts_a_list_by_something_else(browser, name):
    add_rows(3)
    plain = [row.pk for row in browser.get(f"/admin/{name}/").context["cl"].result_list]
    for order in ("1", "-1", "2.-3", "99", "x"):
        answer = browser.get(f"/admin/{name}/?o={order}")
        assert [row.pk for row in answer.context["cl"].result_list] == plain
        assert b'class="sortable' not in answer.content


@pytest.mark.any_database
@pytest.mark.parametrize("name", LISTS)
def test_no_address_filters_a_list_by_a_column_without_an_index(browser, name):
    add_rows(1)
    for query in ("room__exact=r", "reason__contains=x", "created_at__gte=2026-01-01", "nothing=1"):
        answer = browser.get(f"/admin/{name}/?{query}", follow=True)
        assert answer.redirect_chain[-1] == (f"/admin/{name}/", 302)
        assert b"There is no such filter" in answer.content


def test_choices_of_a_filter_are_not_counted(browser):
    add_rows(1)
    answer = browser.get("/admin/offline/outbox/?_facets=True", follow=True)
    assert b"Show counts" not in answer.content
    assert not any("FILTER" in sql for sql in queries_of(browser, "offline/outbox/"))


@pytest.mark.any_database
def test_a_search_finds_exactly_that(browser):
    add_rows(12)
    one = Message.objects.first().pk
    assert browser.get(f"/admin/offline/event/?q={one}").context["cl"].result_count == 1
    assert browser.get("/admin/offline/event/?q=all").context["cl"].result_count == 12
    assert browser.get("/admin/offline/pending/?q=u1").context["cl"].result_count == 1
    assert browser.get(f"/admin/offline/pending/?q={one}").context["cl"].result_count == 1
    assert browser.get(f"/admin/offline/message/?q={one}").context["cl"].result_count == 1
    for nothing in ("x", "9" * 30, "٣", "a\x01"):
        answer = browser.get("/admin/offline/message/", {"q": nothing})
        assert answer.context["cl"].result_count == 0


@pytest.mark.any_database
def test_beyond_a_limit_the_count_is_an_estimate(browser, monkeypatch):
    monkeypatch.setattr(estimates, "EXACT_MAX", 10)
    monkeypatch.setattr(estimates, "PAGES_MAX", 2)
    add_rows(130)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE offline_message")
    assert estimates.estimated_count(Message) == 130
    assert estimates.bounded_count(Message.objects.all()) == 11
    page = browser.get("/admin/offline/message/").context["cl"]
    assert (page.result_count, page.paginator.num_pages) == (130, 2)
    last = browser.get("/admin/offline/message/?p=2")
    assert len(last.context["cl"].result_list) == 50
    assert estimates.bounded_count(Pending.objects.filter(key="u1")) == 1


@pytest.mark.any_database
def test_blanks_of_a_key_may_be_its_own_or_pasted_along(browser):
    for key in ("u1", " u1"):
        Token.objects.issue(key)
    for typed, key in ((" u1", " u1"), ("u1", "u1"), ("u1 ", "u1")):
        found = browser.get("/admin/accounts/token/", {"q": typed}).context["cl"].result_list
        assert key in [row.key for row in found]


# What can be done


@pytest.mark.any_database
def test_an_action_is_not_done_with_more_rows_than_a_request_can_bear(browser, monkeypatch):
    monkeypatch.setattr(admin_tables, "ACTION_MAX", 2)
    add_rows(3)
    Outbox.objects.update(parked_at=timezone.now())
    form = {"action": "retry", "select_across": "1", "_selected_action": ["1"]}
    answer = browser.post("/admin/offline/outbox/", form, follow=True)
    assert b"That is more than 2 rows at once; nothing was done." in answer.content
    assert not Outbox.objects.filter(parked_at=None).exists()
    while Outbox.objects.count() > 2:
        Outbox.objects.first().delete()
    browser.post("/admin/offline/outbox/", form)
    assert Outbox.objects.filter(parked_at=None).count() == 2


@pytest.mark.any_database
@pytest.mark.parametrize("pk", ["x", "-1", "9" * 30, "", "a\0", "٣"])
def test_an_action_with_rows_that_cannot_be_is_told(browser, pk):
    for name, action in (("accounts/token", "revoke"), ("accounts/apikey", "delete_selected")):
        form = {"action": action, "_selected_action": [pk]}
        answer = browser.post(f"/admin/{name}/", form, follow=True)
        assert answer.status_code == 200
        assert b"There are no such rows." in answer.content


def test_parked_messages_are_tried_again(browser):
    add_rows(2)
    parked, waiting = Outbox.objects.order_by("pk")[:2]
    parked.attempts, parked.parked_at, parked.error = 5, timezone.now(), "boom"
    parked.save()
    only = browser.get("/admin/offline/outbox/?parked=yes").context["cl"]
    assert [row.pk for row in only.result_list] == [parked.pk]
    form = {"action": "retry", "_selected_action": [parked.pk, waiting.pk]}
    browser.post("/admin/offline/outbox/", form)
    parked.refresh_from_db()
    assert (parked.attempts, parked.parked_at, parked.error) == (0, None, "")
    assert LogEntry.objects.get(change_message__contains="again").object_id == str(parked.pk)


def test_action_uses_the_primary_and_a_list_the_replica(browser, imgo, monkeypatch):
    imgo(REPLICA_DATABASE="replica")
    replica.process.get(replica._Replica)._use(replica.Source("replica", 0.4), 3600.0)
    monkeypatch.setattr(replica, "connections", MagicMock())
    add_rows(1)
    Outbox.objects.update(parked_at=timezone.now())
    pk = Outbox.objects.values_list("pk", flat=True)[0]
    ages = []
    search = OutboxAdmin.get_queryset

    def get_queryset(self, request):
        ages.append((request.method, replica.current_source().age))
        return search(self, request)

    monkeypatch.setattr(OutboxAdmin, "get_queryset", get_queryset)
    page = browser.get("/admin/offline/outbox/")
    assert b"Read from the replica, at most 0.4 s old." in page.content
    browser.post("/admin/offline/outbox/", {"action": "retry", "_selected_action": [pk]})
    assert Outbox.objects.filter(parked_at=None).exists()
    assert set(ages) == {("GET", 0.4), ("POST", None)}


def test_who_may_only_look_cannot_retry():
    user = User.objects.create_user("looker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_outbox"))
    browser = Client()
    browser.force_login(user)
    add_rows(1)
    Outbox.objects.update(parked_at=timezone.now())
    form = {
        "action": "retry",
        "_selected_action": list(Outbox.objects.values_list("pk", flat=True)),
    }
    browser.post("/admin/offline/outbox/", form)
    assert not Outbox.objects.filter(parked_at=None).exists()


@pytest.fixture
def revoke(transactional_db, browser):
    """Revokes the token of u1, by the list's action or the page of deletion."""

    def by(way: str) -> None:
        Token.objects.issue("u1")
        pk = Token.objects.get().pk
        if way == "action":
            form = {"action": "revoke", "_selected_action": [pk]}
            browser.post("/admin/accounts/token/", form)
        else:
            browser.post(f"/admin/accounts/token/{pk}/delete/", {"post": "yes"})
        assert not Token.objects.exists()
        assert LogEntry.objects.get().action_flag == DELETION

    return by


@pytest.mark.parametrize("way", ["action", "deletion"])
async def test_a_token_that_is_revoked_closes_its_sessions(revoke, listen, way):
    heard = await listen(key_group("u1"))
    await in_thread(revoke, way)
    (order,) = await heard()
    assert (order["type"], order["code"]) == ("imgo.close", CloseCode.REVOKED)


def test_there_is_no_deletion_that_leaves_sessions_open(browser):
    Token.objects.issue("u1")
    assert b"delete_selected" not in browser.get("/admin/accounts/token/").content


def test_the_admin_shows_the_way_to_the_dashboard(browser, client):
    for page in ("", "offline/event/"):
        assert b'href="/dashboard/"' in browser.get(f"/admin/{page}").content
    client.force_login(User.objects.create_user("staff", is_staff=True))
    assert b'href="/dashboard/"' not in client.get("/admin/").content


def test_the_log_shows_what_everybody_did_with_links_to_what_is_there(browser):
    push_to_keys(["u1"], 1)
    message = Message.objects.get()
    somebody = User.objects.create_user("somebody")
    for model, pk, flag, name in (
        (Message, message.pk, ADDITION, "message for <u1>"),
        (Node, None, CHANGE, "sessions of u1"),
        (Token, 7, DELETION, "token of u1"),
    ):
        LogEntry.objects.create(
            user=somebody, content_type=ContentType.objects.get_for_model(model), object_id=pk,
            object_repr=name, action_flag=flag, change_message="Did it.",
        )  # fmt: skip
    page = browser.get("/admin/admin/logentry/").content.decode()
    assert page.count("somebody") == page.count("Did it.") == 3
    link = f'<a href="/admin/offline/message/{message.pk}/change/">message for &lt;u1&gt;</a>'
    assert link in page
    assert "/admin/accounts/token/7/" not in page


@pytest.mark.parametrize("name", ["message", "pending", "event", "outbox"])
def test_every_row_has_a_page(browser, name):
    add_rows(1)
    model = {"message": Message, "pending": Pending, "event": Event, "outbox": Outbox}[name]
    pk = model.objects.first().pk
    assert browser.get(f"/admin/offline/{name}/{pk}/change/").status_code == 200


def test_page_of_a_batch_names_keys_and_rooms_without_the_mark(browser):
    batch = WebhookBatch.objects.create(
        endpoint="u",
        body="[]",
        keys=["u1", f"{ROOM_MARK}chat-1"],
        size=2,
        give_up_at=timezone.now(),
    )
    page = browser.get(f"/admin/push/webhookbatch/{batch.pk}/change/").text
    assert "u1, room chat-1" in page
    assert ROOM_MARK not in page
    assert "u0002" not in page
