"""The dashboard: who may look, what is shown and done, and what happens when parts fail."""

import asyncio
import html
import json
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Token
from imgo_site.errors import BadRequest
from imgo_site.names import DASHBOARD_ROOM
from offline.models import RECEIVED, Event, Message, Pending, ScheduledPush
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import Push, accept_push
from push.bus.group_names import key_group, node_group
from push.dashboard import views
from push.devices.tables import Notice
from push.models import Duty, SessionRecord
from push.registry.base import Entry, FullestRooms, NodeEntry
from push.registry.redis_registry import RedisRegistry
from push.session.session_records import Row, SessionEvent
from push.status import snapshot
from push.wire import CloseCode
from tests import in_thread
from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE

PAGES = [
    "",
    "key?name=u1",
    "room?name=r1",
    "rooms",
    "streams",
    "keys",
    "act/push",
    "act/kick-key?name=u1",
]
ACTIONS = {
    "push.push_message": ("push", {"target": "key", "name": "u1", "body": "1", "dedupe": "d"}),
    "push.kick_session": ("kick-key", {"name": "u1"}),
    "push.drain_node": ("drain-node", {"node": "n1"}),
    "accounts.delete_token": ("revoke-token", {"name": "u1"}),
}
NODE = NodeEntry("n1", "node-one", 7, 1_700_000_000.0)


def browser_of(user: User, **options: bool) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


def staff(*permissions: str) -> User:
    user = User.objects.create_user(f"staff{time.monotonic_ns()}", is_staff=True)
    for name in permissions:
        app, codename = name.split(".")
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label=app, codename=codename)
        )
    return user


@pytest.fixture(autouse=True)
def confirmed(monkeypatch) -> None:
    """There is no node here that could confirm an order."""
    monkeypatch.setattr("push.operations._confirm", lambda *_, **__: None)


@pytest.fixture
def superuser(db) -> User:
    return User.objects.create_user("root", is_staff=True, is_superuser=True)


@pytest.fixture
def browser(superuser) -> Client:
    return browser_of(superuser)


@pytest.fixture
def populate(settings, redis_client):
    """Writes a node with sessions into the registry: `populate({"u1": ["r1"]})`."""

    def write(keys: dict[str, list[str]], node: NodeEntry = NODE) -> None:
        async def go() -> None:
            registry = RedisRegistry(settings.REDIS_URL)
            await registry.start(node)
            for place, (key, rooms) in enumerate(keys.items()):
                entry = Entry(f"n1-{place}", key, "n1", "tcp", "192.0.2.1", "ios", 1_700_000_000.0)
                await registry.add(entry, 0, evict=False)
                await registry.join(entry, rooms)
            await registry._client.aclose()

        asyncio.run(go())

    return write


@pytest.fixture
def redis_down(monkeypatch, closed_port):
    registry = RedisRegistry(f"redis://127.0.0.1:{closed_port}/0")
    for module in (
        "status.snapshot",
        "status.key_sessions",
        "operations",
        "dashboard.views",
        "dashboard.actions",
    ):
        monkeypatch.setattr(f"push.{module}.get_registry", lambda: registry)


def do(browser: Client, action: str, values: dict[str, str]):
    return browser.post(f"/dashboard/act/{action}", {**values, "confirmed": "1"}, follow=True)


def text_of(answer) -> str:
    return answer.content.decode()


# Who may


@pytest.mark.parametrize("page", PAGES)
def test_nobody_is_sent_to_the_login_of_the_admin(client, db, page):
    answer = client.get(f"/dashboard/{page}")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/?next=/dashboard/")


def test_the_data_are_for_nobody_else(client, db, django_user_model):
    assert client.get("/dashboard/data").status_code == 401
    client.force_login(django_user_model.objects.create_user("ann"))
    assert client.get("/dashboard/data").status_code == 401
    other = browser_of(staff()).get("/dashboard/data")
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")


def test_staff_needs_the_permission_to_look(db, redis_client):
    without = browser_of(staff()).get("/dashboard/")
    assert without.status_code == 403
    assert "push.view_dashboard" in text_of(without)
    answer = browser_of(staff("push.view_dashboard")).get("/dashboard/")
    assert answer.status_code == 200
    assert "Push a message" not in text_of(answer)


def test_an_error_page_has_the_heading_as_its_title(db):
    answer = browser_of(staff()).get("/dashboard/")
    assert "<title>Not allowed · imgo</title>" in answer.content.decode()
    assert '<h1 id="error-title">Not allowed</h1>' in answer.content.decode()


@pytest.mark.parametrize("permission", ACTIONS)
def test_each_action_needs_its_permission(db, populate, permission, tasks):
    populate({"u1": []})
    Token.objects.issue("u1")
    action, values = ACTIONS[permission]
    others = [name for name in ACTIONS if name != permission]
    refused = browser_of(staff("push.view_dashboard", *others))
    assert do(refused, action, values).status_code == 403
    assert refused.get(f"/dashboard/act/{action}", values).status_code == 403
    assert not LogEntry.objects.exists()
    allowed = do(browser_of(staff("push.view_dashboard", permission)), action, values)
    assert allowed.status_code == 200
    assert LogEntry.objects.count() == 1


@pytest.mark.parametrize("permission", ACTIONS)
def test_an_action_needs_the_csrf_token(superuser, populate, permission):
    populate({"u1": []})
    Token.objects.issue("u1")
    action, values = ACTIONS[permission]
    browser = browser_of(superuser, enforce_csrf_checks=True)
    answer = do(browser, action, values)
    assert answer.status_code == 403
    assert "CSRF cookie not set. Go back, load the page again, and repeat." in text_of(answer)
    assert Token.objects.exists()
    assert not LogEntry.objects.exists()
    assert not Message.objects.exists()


@pytest.mark.parametrize("permission", ACTIONS)
def test_nothing_is_done_before_it_is_confirmed(browser, populate, permission):
    populate({"u1": []})
    Token.objects.issue("u1")
    action, values = ACTIONS[permission]
    for answer in (
        browser.get(f"/dashboard/act/{action}", values),
        browser.post(f"/dashboard/act/{action}", values),
    ):
        assert answer.status_code == 200
    assert 'name="confirmed"' in text_of(answer)
    assert not LogEntry.objects.exists()
    assert Token.objects.exists()
    assert not Message.objects.exists()


@pytest.mark.parametrize("page", PAGES)
def test_pages_run_nothing_but_our_own_files(browser, populate, page):
    populate({"u1": ["r1"]})
    answer = browser.get(f"/dashboard/{page}")
    assert answer.status_code == 200
    policy = answer["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    text = text_of(answer)
    assert " style=" not in text
    for script in text.split("<script")[1:]:
        assert "src=" in script.split(">")[0] or 'type="application/json"' in script.split(">")[0]


# What is shown


def test_the_picture(browser, populate, tasks):
    populate({"u1": ["r1", "r2"], "u2": ["r1"], "\x01dashboard:1:x": [DASHBOARD_ROOM]})
    one = accept_push(Push(b"1", keys=("u1", "u2")))
    found = browser.get("/dashboard/data").json()
    assert found["problems"] == []
    assert found["sessions"] == 3
    assert found["nodes"]["rows"][0]["name"] == "node-one"
    assert found["rooms"]["top"] == [
        {"room": "r1", "sessions": 2},
        {"room": "r2", "sessions": 1},
    ]
    assert (found["rooms"]["count"], found["rooms"]["watching"]) == (2, 1)
    assert (found["pushes"], found["pending"], found["outbox"]["waiting"]) == (one, 2, 2)
    (latest,) = found["latest"]
    assert (latest["id"], latest["name"], latest["keys"]) == (str(one), "u1", 2)


def test_how_long_deliveries_took(db):
    now = accept_push(Push(b"1", keys=("u1", "u2", "u3")))
    record_receipts([Receipt(now, "u1", RECEIVED, "n1-1"), Receipt(now, "u2", RECEIVED, "n1-2")])
    found = snapshot.counters()["latency"]
    assert 0 <= found["p50"] <= found["p99"] < 1000 * snapshot.LIVE_MAX
    # What was away for a minute says nothing about how fast we are.
    late = accept_push(Push(b"1", keys=("u4",)))
    message = Message.objects.get(pk=late)
    Message.objects.filter(pk=late).update(created_at=message.created_at.replace(year=2020))
    Event.objects.all().delete()
    record_receipts([Receipt(late, "u4", RECEIVED, "n1-1")])
    assert snapshot.counters()["latency"] == {"p50": None, "p99": None}


def test_the_samples_of_the_last_minutes_are_kept_and_no_more(db, monkeypatch):
    assert snapshot.history() == []
    assert Duty.objects.claim(snapshot.SAMPLES, 1)
    for count in range(snapshot.SAMPLES_KEPT + 3):
        snapshot.add_sample({"sessions": count, "deliveries": 0})
    kept = snapshot.history()
    assert len(kept) == snapshot.SAMPLES_KEPT
    assert kept[-1]["sessions"] == snapshot.SAMPLES_KEPT + 2
    later = time.time() + snapshot.SAMPLE_EVERY * snapshot.SAMPLES_KEPT + 1
    monkeypatch.setattr(snapshot.time, "time", lambda: later)
    assert snapshot.history() == []


def test_a_key_is_found_with_what_is_known_of_it(browser, populate):
    populate({"u1": []})
    ids = [accept_push(Push(b"1", keys=("u1",))) for _ in range(2)]
    record_receipts([Receipt(ids[0], "u1", RECEIVED, "n1-0")])
    text = text_of(browser.get("/dashboard/key", {"name": "u1", "message": ids[0]}))
    for part in ("node-one", "192.0.2.1", "ios", "n1-0", "acknowledged kernel", str(ids[1])):
        assert part in text
    assert "which counts as received" in text
    assert "Pending messages (1)" in text


def test_a_key_with_many_pushes_takes_as_many_queries_as_one_with_few(browser, redis_client):
    counts = []
    for pushes in (1, 9):
        for _ in range(pushes):
            accept_push(Push(b"1", keys=("u1",)))
        with CaptureQueriesContext(connection) as queries:
            browser.get("/dashboard/key", {"name": "u1"})
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 14


def test_key_that_is_gone_shows_when_it_was_last_seen(browser, redis_client):
    closed = SessionEvent(1_796_000_000.0, "n1", "tcp", "192.0.2.1")
    SessionRecord.objects.write([Row("u1", None, None, closed)])
    page = text_of(browser.get("/dashboard/key", {"name": "u1"}))
    assert "Not connected. Last seen <time" in page
    assert ">2026-11-30 00:53:20</time>." in page


@pytest.mark.parametrize("name", ["nobody", "a/b?c&d=<e>'\"", " blanks ", "ключ"])
def test_an_unknown_key_is_no_error(browser, redis_client, name):
    answer = browser.get("/dashboard/key", {"name": name})
    assert answer.status_code == 200
    assert "Not connected." in text_of(answer)
    assert "<e>" not in text_of(answer)


@pytest.mark.parametrize("page", ["key", "room"])
@pytest.mark.parametrize("name", ["", "a\x01b", "x" * 256])
def test_a_name_that_cannot_be_is_told(browser, redis_client, page, name):
    answer = browser.get(f"/dashboard/{page}", {"name": name})
    assert answer.status_code == 400
    assert 'role="alert"' in text_of(answer)


def test_the_rooms_are_listed_but_for_our_own(browser, populate, monkeypatch):
    populate({"u1": ["r1", "r2", "a/b?c"], "u2": ["r1"], "\x01dashboard:1:x": [DASHBOARD_ROOM]})
    text = text_of(browser.get("/dashboard/rooms"))
    assert "Fullest rooms (3)" in text
    assert "room?name=a%2Fb%3Fc" in text
    assert DASHBOARD_ROOM not in text
    monkeypatch.setattr("push.dashboard.views.ROOMS_SHOWN", 1)
    text = text_of(browser.get("/dashboard/rooms"))
    assert "The fullest 1 of 3" in text
    assert text.count('scope="row"') == 1


def test_an_estimate_of_the_rooms_is_called_one(browser, populate, monkeypatch):
    populate({"u1": ["r1"]})
    found = FullestRooms(200_000, True, [("r1", 1)])
    monkeypatch.setattr(RedisRegistry, "fullest_rooms", lambda *_: found)
    assert "Fullest rooms (about 200,000)" in text_of(browser.get("/dashboard/rooms"))
    assert browser.get("/dashboard/data").json()["rooms"]["count_is_estimate"] is True


def test_the_connected_keys_are_listed_but_for_our_own(browser, populate):
    populate({"u1": [], "u2": [], "a/b?c&d": [], "\x01dashboard:1:x": [DASHBOARD_ROOM]})
    text = text_of(browser.get("/dashboard/keys"))
    assert "Connected keys (3)" in text
    assert "key?name=a%2Fb%3Fc%26d" in text
    assert "x01" not in text
    assert "\x01" not in text
    filtered = text_of(browser.get("/dashboard/keys", {"part": "u"}))
    assert filtered.count('scope="row"') == 2
    assert "None, of 4 keys looked at." in text_of(browser.get("/dashboard/keys", {"part": "zz"}))


def test_nobody_is_connected(browser, redis_client):
    assert "No key is connected." in text_of(browser.get("/dashboard/keys"))
    assert "Nobody is in a room." in text_of(browser.get("/dashboard/rooms"))


def test_many_keys_are_shown_a_few_at_a_time(browser, populate, monkeypatch):
    monkeypatch.setattr("push.registry.redis_queries.SCAN", 10)
    monkeypatch.setattr("push.dashboard.views.KEYS_SHOWN", 20)
    populate({f"u{n}": [] for n in range(200)})
    found: set[str] = set()
    page, pages = "/dashboard/keys", 0
    while page:
        text = text_of(browser.get(page))
        names = re.findall(r"key\?name=(u\d+)", text)
        assert len(names) < 100
        found |= set(names)
        more = re.search(r'id="more-keys" href="([^"]+)"', text)
        page, pages = more and f"/dashboard/keys{html.unescape(more[1])}", pages + 1
    assert found == {f"u{n}" for n in range(200)}
    assert pages > 3


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"cursor": "-1"}, {"part": "a\x01"}], ids=str)
def test_a_bad_place_in_the_keys_is_told(browser, redis_client, query):
    answer = browser.get("/dashboard/keys", query)
    assert answer.status_code == 400
    assert 'role="alert"' in text_of(answer)


def test_an_address_that_is_no_page(browser, client):
    answer = browser.get("/dashboard/nothing/here")
    assert answer.status_code == 404
    assert "There is nothing at /dashboard/nothing/here." in text_of(answer)
    assert client.get("/dashboard/nothing").status_code == 302  # nobody is told what there is


def test_path_with_a_final_slash_redirects_to_its_page(browser, client):
    for name in ("streams", "rooms", "keys", "tail", "act/push"):
        answer = browser.get(f"/dashboard/{name}/?more=1&q=a%26b")
        assert (answer.status_code, answer.url) == (302, f"/dashboard/{name}?more=1&q=a%26b")
    assert browser.get("/dashboard/streams/").url == "/dashboard/streams"
    assert browser.get("/dashboard/streamz/").status_code == 404
    assert client.get("/dashboard/streamz/").status_code == 302  # to the login


def test_a_picture_counts_what_the_nodes_have_delivered(browser, populate, redis_client):
    populate({"u1": []})
    redis_client.set("imgo:registry:deliveries:n1", 12)
    assert browser.get("/dashboard/data").json()["deliveries"] == 12
    found = snapshot.totals()
    assert (found["sessions"], found["deliveries"]) == (1, 12)


def test_many_members_are_cut(browser, populate, monkeypatch):
    monkeypatch.setattr("push.dashboard.views.MEMBERS_SHOWN", 5)
    populate({f"u{n}": ["r1"] for n in range(20)})
    text = text_of(browser.get("/dashboard/room", {"name": "r1"}))
    assert "Sessions (20)" in text
    assert "5 of 20." in text
    assert text.count('scope="row"') == 5


@pytest.mark.parametrize(
    ("policy", "text"),
    [({"client_publish": "members"}, "members of the room"), ({"history": 5}, "nobody")],
)
def test_page_of_a_room_shows_which_clients_may_publish(browser, imgo, policy, text):
    imgo(ROOMS={"chat-*": policy})
    shown = text_of(browser.get("/dashboard/room", {"name": "chat-1"}))
    assert f"<dt>Clients that may publish</dt><dd>{text}</dd>" in shown


# What is done


def logged() -> tuple[str, str]:
    entry = LogEntry.objects.get()
    assert entry.user.username == "root"
    return entry.object_repr, entry.change_message


@pytest.mark.parametrize(
    ("body", "stored"),
    [('{"a": 1.0}', b'{"a": 1.0}'), ("two\r\nlines", b'"two\\nlines"'), ("7", b"7")],
)
def test_a_push(browser, populate, tasks, body, stored):
    populate({"u1": []})
    values = {"target": "key", "name": "u1", "body": body, "dedupe": "d1", "store": "on"}
    for told in ("is accepted", "is not pushed again"):  # sent twice, pushed once
        assert told in text_of(do(browser, "push", values))
    message = Message.objects.get()
    assert (bytes(message.body), message.keys, message.by) == (stored, ["u1"], "dashboard:root")
    assert Pending.objects.filter(key="u1").count() == 1
    entry = LogEntry.objects.get()
    assert entry.object_id == str(message.pk)
    assert f"message {message.pk} to the key 'u1'" in entry.object_repr


def test_push_with_a_time_is_scheduled_in_the_site_zone(browser, settings, redis_client):
    settings.TIME_ZONE = "Europe/Berlin"
    day = timezone.now() + timedelta(days=1)
    values = {"target": "key", "name": "u1", "body": "1", "dedupe": "d1"}
    values["send_at"] = f"{day:%Y-%m-%d}T18:00"
    assert "A time of the zone Europe/Berlin" in text_of(browser.get("/dashboard/act/push"))
    asked = text_of(browser.post("/dashboard/act/push", values))
    assert f"It is sent at {day:%Y-%m-%d}T1" in asked
    assert f'name="send_at" value="{values["send_at"]}"' in asked
    assert "is accepted" in text_of(do(browser, "push", values))
    due = ScheduledPush.objects.get().due_at
    assert f"{due.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m-%dT%H:%M}" == values["send_at"]


def test_push_that_notifies_says_so_and_stores_a_notice(browser, redis_client, imgo):
    values = {"target": "key", "name": "u1", "body": "1", "dedupe": "d1", "store": "on"}
    values |= {"notify_title": "Order 7", "notify_url": "/orders/7", "notify_after": "60"}
    assert "set WEBPUSH_PRIVATE_KEY" in text_of(browser.post("/dashboard/act/push", values))
    imgo(WEBPUSH_PRIVATE_KEY=VAPID_PRIVATE, WEBPUSH_SUBJECT=SUBJECT)
    asked = text_of(browser.post("/dashboard/act/push", values))
    assert "show 'Order 7' if it is not read" in asked.replace("&#x27;", "'")
    assert "is accepted" in text_of(do(browser, "push", values))
    notice = Notice.objects.get()
    assert json.loads(notice.content) == {"title": "Order 7", "url": "/orders/7"}
    untitled = {**values, "notify_title": "", "dedupe": "d2"}
    assert "a notification needs a title" in text_of(do(browser, "push", untitled))


def test_push_whose_commit_is_not_confirmed_is_of_unknown_outcome(browser, tasks, monkeypatch):
    @contextmanager
    def unconfirmed():
        with transaction.atomic():
            yield
        raise OperationalError("the connection is lost")

    values = {"target": "key", "name": "u1", "body": "1", "dedupe": "d1", "store": "on"}
    with monkeypatch.context() as patch:
        patch.setattr(views, "transaction", SimpleNamespace(atomic=unconfirmed))
        answer = do(browser, "push", values)
    assert answer.status_code == 503
    assert "did not confirm" in text_of(answer)
    assert "is not pushed again" in text_of(do(browser, "push", values))


def test_who_goes_back_and_changes_the_text_pushes_both(browser, redis_client):
    values = {"target": "key", "name": "u1", "dedupe": "d1"}
    for body in ("1", "2"):
        assert "is accepted" in text_of(do(browser, "push", {**values, "body": body}))
    assert [bytes(row.body) for row in Message.objects.order_by("pk")] == [b"1", b"2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "key", "name": ""},
        {"target": "all", "name": "u1"},
        {"body": ""},
        {"target": "room", "name": DASHBOARD_ROOM},
        {"name": "a\x01b"},
        {"ttl": "0"},
        {"ttl": "99999999"},
        {"body": "x" * 70_000},
        {"target": "nowhere"},
    ],
    ids=str,
)
def test_a_bad_push_is_an_error_of_the_form(browser, redis_client, wrong):
    values = {"target": "key", "name": "u1", "body": "1", "dedupe": "d"}
    answer = do(browser, "push", {**values, **wrong})
    assert answer.status_code == 400
    assert "errorlist" in text_of(answer)
    assert not Message.objects.exists()
    assert not LogEntry.objects.exists()


@pytest.fixture
def desk(transactional_db, superuser, populate):
    """An operator beside a node with a session of u1: does an action."""

    def act(action: str, values: dict[str, str]):
        populate({"u1": []})
        return do(browser_of(superuser), action, values)

    return act


KICK_SESSION = {"session": "n1-0", "name": "u1"}
KICKS = [
    ("kick-key", {"name": "u1"}, (key_group("u1"), [], "sessions of u1")),
    ("kick-session", KICK_SESSION, (node_group("n1"), ["n1-0"], "session n1-0 of u1")),
]


@pytest.mark.parametrize(("action", "values", "expected"), KICKS)
async def test_sessions_are_closed(desk, listen, action, values, expected):
    group, sessions, what = expected
    heard = await listen(group)
    answer = await in_thread(desk, action, values)
    assert b"being closed" in answer.content
    (order,) = await heard()
    assert (order["type"], order["sessions"]) == ("imgo.close", sessions)
    assert order["code"] == CloseCode.KICKED
    assert (await in_thread(logged))[0] == what


async def test_a_node_is_drained(desk, listen):
    heard = await listen(node_group("n1"))
    answer = await in_thread(desk, "drain-node", {"node": "n1"})
    assert b"node-one is closing 1 session" in answer.content
    assert [order["type"] for order in await heard()] == ["imgo.drain"]
    assert await in_thread(logged) == ("node-one", "Drained the node.")


def test_a_node_that_is_gone_cannot_be_drained(browser, redis_client):
    assert do(browser, "drain-node", {"node": "n9"}).status_code == 404
    assert not LogEntry.objects.exists()


def test_a_token_is_revoked(browser, populate):
    populate({"u1": []})
    Token.objects.issue("u1")
    assert "is revoked" in text_of(do(browser, "revoke-token", {"name": "u1"}))
    assert not Token.objects.exists()
    assert logged()[0] == "token of u1"
    assert do(browser, "revoke-token", {"name": "u1"}).status_code == 404
    assert LogEntry.objects.count() == 1


def test_a_part_that_is_missing_is_named(browser):
    answer = browser.get("/dashboard/act/kick-session", {"name": "u1"})
    assert "session: This field is required." in text_of(answer)


GONE = [
    ("kick-key", {"name": "u9"}, "is not connected"),
    ("kick-session", {"session": "n1-9", "name": "u1"}, "has no session"),
    ("kick-session", {"session": "x", "name": "u1"}, "has no session"),
    ("revoke-token", {"name": "u1"}, "has no token"),
    ("drain-node", {"node": "n9"}, "no live node"),
]


@pytest.mark.parametrize(("action", "values", "why"), GONE)
def test_nobody_is_asked_about_what_is_gone(browser, populate, action, values, why):
    populate({"u1": []})
    # Or it goes while the question is shown.
    for answer in (browser.get(f"/dashboard/act/{action}", values), do(browser, action, values)):
        assert answer.status_code == 404
        assert why in text_of(answer)
    assert not LogEntry.objects.exists()


def test_a_node_that_drains_already_is_left_alone(browser, populate):
    populate({}, replace(NODE, is_draining=True))
    assert browser.get("/dashboard/data").json()["nodes"]["rows"][0]["is_draining"]
    answer = do(browser, "drain-node", {"node": "n1"})
    assert (answer.status_code, "draining already" in text_of(answer)) == (400, True)
    assert not LogEntry.objects.exists()


def test_there_are_no_other_actions(browser):
    assert browser.get("/dashboard/act/fly").status_code == 404


@pytest.mark.parametrize("method", ["put", "delete"])
def test_the_wrong_method(browser, method):
    assert getattr(browser, method)("/dashboard/act/push").status_code == 405
    assert browser.post("/dashboard/").status_code == 405
    assert browser.head("/dashboard/").status_code == 200


def test_nobody_else_pushes_to_the_dashboards(db):
    with pytest.raises(BadRequest, match="dashboard's own"):
        accept_push(Push(b"1", room=DASHBOARD_ROOM))


# When parts are away


def test_without_redis_the_rest_is_shown(browser, redis_down):
    found = browser.get("/dashboard/data").json()
    assert len(found["problems"]) == 1
    assert "Redis cannot be reached" in found["problems"][0]
    assert "sessions" not in found
    assert found["pending"] == 0
    assert browser.get("/dashboard/").status_code == 200
    key = browser.get("/dashboard/key?name=u1")
    assert key.status_code == 200
    assert "cannot be reached" in text_of(key)


@pytest.mark.parametrize("page", ["room?name=r1", "rooms", "keys", "act/kick-key?name=u1"])
def test_what_needs_redis_says_so(browser, redis_down, page):
    answer = browser.get(f"/dashboard/{page}")
    assert answer.status_code == 503
    assert "cannot be reached" in text_of(answer)


def test_what_could_not_be_done_is_not_logged_as_done(browser, redis_down):
    assert do(browser, "kick-key", {"name": "u1"}).status_code == 503
    assert not LogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_without_the_database_there_is_a_message(database_down, redis_client):
    # It signed in before: a cookie is all that such a browser has.
    browser = Client()
    browser.cookies["sessionid"] = "a" * 32
    for page in PAGES:
        answer = browser.get(f"/dashboard/{page}")
        assert answer.status_code == 503
        assert "The database cannot be reached" in text_of(answer)
    answer = browser.get("/dashboard/data")
    assert (answer.status_code, answer.json()["retry"]) == (503, True)
