"""Our own API: every path, its good answer, and its answers to what is wrong."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Token, digest
from offline.models import Message, Outbox, Pending
from offline.partitions import partition_of
from push.accept.accept import push_to_key
from push.bus.group_names import key_group
from tests import in_thread

PUSHES = "/api/v1/pushes"
TOKENS = "/api/v1/tokens"
pytestmark = pytest.mark.django_db


def send(api, data: Any, path: str = PUSHES):
    """POST bytes as they are, anything else as JSON."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return api.post(path, data, content_type="application/json")


def check_problem(answer, status: int, code: str) -> str:
    """See that the answer is this problem (RFC 9457); its detail."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "code", "detail", "retry"}
    assert (problem["status"], problem["code"]) == (status, code)
    return problem["detail"]


# Pushing


@pytest.mark.parametrize(
    ("to", "sent_to"),
    [
        ({"key": "u1"}, ("keys", ["u1"], {partition_of("u1", 4)})),
        (
            {"keys": ["u1", "u2"]},
            ("keys", ["u1", "u2"], {partition_of(u, 4) for u in ("u1", "u2")}),
        ),
        ({"room": "r"}, ("room", [], {partition_of("r", 4)})),
        ({"all": True}, ("all", [], {0})),
    ],
)
def test_a_push_is_accepted(api, queued, committed, to, sent_to):
    with committed():
        answer = send(api, {"to": to, "body": {"n": 1}})
    assert answer.status_code == 202
    assert answer["Content-Type"] == "application/json"
    message = Message.objects.get()
    assert answer.json() == {"id": str(message.pk)}
    assert message.by.startswith("apikey:")
    owed = list(Pending.objects.order_by("pk").values_list("key", flat=True))
    assert (message.audience, owed, queued()) == sent_to


def test_every_option_is_taken(api):
    options = {"op": 1001, "ttl": 9, "store": "never", "dedupe_id": "d", "ensure": True}
    first = send(api, {"to": {"key": "u1"}, "body": None, **options}).json()["id"]
    message = Message.objects.get()
    assert (message.op, message.stored, message.keys) == (1001, False, ["u1"])
    assert message.expires_at - message.created_at == timedelta(seconds=9)
    again = send(api, {"to": {"key": "u2"}, "body": 2, "dedupe_id": "d"})
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert Message.objects.count() == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"b": 1,  "a": 2.50, "b": 3}',
        b'"\\u00e4 \\ud83d\\ude00"',
        '"ä\U0001f600"'.encode(),
        b"12345678901234567890.10",
        b"1e999",
        b"[ 1 ,2 ]",
        b"null",
        b'""',
        b"-0",
    ],
    ids=repr,
)
def test_a_body_is_kept_as_it_was_sent(api, body):
    single = b'{"to": {"key": "u1"}, "body": ' + body + b"}"
    assert send(api, single).status_code == 202
    assert send(api, b"[" + single + b"]").json()[0].keys() == {"id"}
    for message in Message.objects.all():
        assert (bytes(message.body), message.is_json) == (body, True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"{",
        b"{}",
        b"null",
        b'"text"',
        b"7",
        b"\xff",
        b"\0",
        b'{"to": {"key": "u1"}}',
        b'{"body": 1}',
        b'{"to": "u1", "body": 1}',
        b'{"to": {}, "body": 1}',
        b'{"to": {"key": null}, "body": 1}',
        b'{"to": {"key": ""}, "body": 1}',
        b'{"to": {"key": 1}, "body": 1}',
        b'{"to": {"keys": []}, "body": 1}',
        b'{"to": {"keys": [""]}, "body": 1}',
        b'{"to": {"keys": "u1"}, "body": 1}',
        b'{"to": {"room": ""}, "body": 1}',
        b'{"to": {"all": false}, "body": 1}',
        b'{"to": {"all": 1}, "body": 1}',
        b'{"to": {"key": "u1", "room": "r"}, "body": 1}',
        b'{"to": {"key": "u1", "keys": []}, "body": 1}',
        b'{"to": {"key": "u1", "uid": 1}, "body": 1}',
        b'{"to": {"key": "u1"}, "body": 1, "priority": 1}',
        b'{"to": {"key": "a\\u0000"}, "body": 1}',
        b'{"to": {"key": "a\\nb"}, "body": 1}',
        b'{"to": {"key": "\\ud800"}, "body": 1}',
        b'{"to": {"key": "u1\xff"}, "body": 1}',
        b'{"to": {"key": "u1"}, "body": "\xff"}',
        b'{"to": {"key": "u1"}, "body": NaN}',
        b'{"to": {"key": "u1"}, "body": }',
        b'{"to": {"key": "u1"}, "body": 1, "op": 4}',
        b'{"to": {"key": "u1"}, "body": 1, "op": -1}',
        b'{"to": {"key": "u1"}, "body": 1, "op": 2147483648}',
        b'{"to": {"key": "u1"}, "body": 1, "op": 99999999999999999999999}',
        b'{"to": {"key": "u1"}, "body": 1, "op": "5"}',
        b'{"to": {"key": "u1"}, "body": 1, "ttl": 0}',
        b'{"to": {"key": "u1"}, "body": 1, "ttl": 1.5}',
        b'{"to": {"key": "u1"}, "body": 1, "ttl": 99999999}',
        b'{"to": {"key": "u1"}, "body": 1, "store": "maybe"}',
        b'{"to": {"key": "u1"}, "body": 1, "dedupe_id": ""}',
        b'{"to": {"key": "u1"}, "body": 1, "dedupe_id": "a\\u0000"}',
        b'{"to": {"key": "u1"}, "body": 1, "ensure": "yes"}',
        b'{"to": {"key": "u1"}, "body": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"to": ' * 5000 + b"1" + b"}" * 5000,
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data)[2:60],
)
def test_a_bad_push_is_a_problem_that_says_so(api, data):
    assert check_problem(send(api, data), 400, "bad_request")
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("ttl", -1, "ttl must be from 1 to 2592000 seconds, not -1."),
        ("ttl", 10**12, "ttl must be from 1 to 2592000 seconds, not 1000000000000."),
        ("ttl", 1.5, "ttl must be a whole number, not 1.5."),
        ("op", -1, "op must be 5, or from 1000 to 2147483647, not -1."),
    ],
)
def test_push_number_out_of_range_names_the_rule(api, field, value, rule):
    data = json.dumps({"to": {"key": "u1"}, "body": 1, field: value}).encode()
    assert check_problem(send(api, data), 400, "bad_request") == rule


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        ({"MAX_BODY": 3}, {"to": {"key": "u1"}, "body": 1234}),
        ({"MAX_KEYS": 2}, {"to": {"keys": ["a", "b", "c"]}, "body": 1}),
        ({"MAX_REQUEST": 20}, {"to": {"key": "u1"}, "body": 1}),
        ({"MAX_PUSHES": 1}, [{"to": {"key": "u1"}, "body": 1}] * 2),
    ],
    ids=str,
)
def test_what_is_above_a_limit_is_too_large(api, imgo, limits, data):
    imgo(**limits)
    check_problem(send(api, data), 413, "too_large")
    assert not Message.objects.exists()


def test_a_request_that_lies_about_its_length_is_no_larger(api, imgo):
    imgo(MAX_REQUEST=20)
    data = {"to": {"key": "u1"}, "body": 1}
    answer = api.generic("POST", PUSHES, json.dumps(data), CONTENT_LENGTH="5")
    assert answer.status_code in {400, 413}
    assert not Message.objects.exists()


def test_what_djangos_limit_refuses_is_too_large(api, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 20
    check_problem(send(api, {"to": {"key": "u1"}, "body": 1}), 413, "too_large")


def test_a_key_with_too_many_names_is_refused_before_it_is_stored(api):
    data = {"to": {"keys": [f"k{n}" for n in range(10_001)]}, "body": 1}
    detail = check_problem(send(api, data), 413, "too_large")
    assert detail == "A push names at most 10000 keys; this one 10001."


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_the_content_type_does_not_matter(api, content_type):
    """curl -d sends a form's, and nobody wants to be told."""
    body = '{"to": {"key": "u1"}, "body": 1}'
    assert api.generic("POST", PUSHES, body, content_type=content_type).status_code == 202


def test_an_array_is_answered_item_by_item(api, queued, committed):
    with committed():
        answer = send(
            api,
            [
                {"to": {"key": "u1"}, "body": 1},
                {"to": {"key": ""}, "body": 2},
                {"to": {"room": "r"}, "body": 3, "dedupe_id": "d"},
                7,
                {"to": {"room": "r"}, "body": 4, "dedupe_id": "d"},
                {"to": {"all": True}, "body": 5, "op": 4},
            ],
        )
    assert answer.status_code == 202
    one, bad_key, three, no_push, again, bad_op = answer.json()
    first, second = Message.objects.order_by("pk")
    assert (one, three, again) == ({"id": str(first.pk)}, {"id": str(second.pk)}, three)
    for item in (bad_key, no_push, bad_op):
        assert item.keys() == {"error"}
        assert (item["error"]["status"], item["error"]["code"]) == (400, "bad_request")
    assert queued() == {partition_of("u1", 4), partition_of("r", 4)}


@pytest.mark.parametrize("data", [b"[]", b" \n[ ] "])
def test_an_empty_array_is_answered_by_one(api, data):
    answer = send(api, data)
    assert (answer.status_code, answer.json()) == (202, [])


@pytest.mark.parametrize("data", [b"[", b"[1", b"[1]]", b"[1,]", b'["\xff"]', b"[{}"])
def test_a_broken_array_is_a_problem(api, data):
    check_problem(send(api, data), 400, "bad_request")


def test_without_the_database_a_push_is_unavailable(api, database_down):
    answer = send(api, {"to": {"key": "u1"}, "body": 1})
    check_problem(answer, 503, "unavailable")
    assert answer.json()["retry"] is True
    assert int(answer["Retry-After"]) > 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("to", [{"key": "u1"}, {"room": "r"}, {"all": True}])
def test_without_the_broker_a_push_is_accepted_and_waits(api, broker_down, to):
    answer = send(api, {"to": to, "body": 1})
    assert answer.status_code == 202
    assert int(answer.json()["id"]) == Outbox.objects.get().message_id


# Keys


def test_a_key_that_nobody_knows(api, nodes):
    answer = api.get("/api/v1/keys/u1")
    assert answer.status_code == 200
    nothing = dict.fromkeys(("last_seen", "opened", "refused", "closed"))
    counts = {"pending": 0, "unacknowledged": 0}
    assert answer.json() == {"key": "u1", "online": False, "sessions": [], **counts, **nothing}


def test_a_key_with_sessions_and_what_is_pending(api, nodes):
    nodes.open("s1", "u1")
    nodes.open("s2", "u1")
    nodes.open("s3", "u2")
    for ttl in (60, 60, 1):
        push_to_key("u1", 1, ttl=ttl)
    last = Pending.objects.filter(message=Message.objects.latest("pk"))
    last.update(expires_at=timezone.now())
    answer = api.get("/api/v1/keys/u1").json()
    assert (answer["online"], answer["pending"]) == (True, 2)
    assert answer["last_seen"] >= answer["sessions"][1]["since"]
    assert answer["sessions"] == [
        {
            "id": name,
            "node": "n1",
            "transport": "tcp",
            "address": "192.0.2.1",
            "platform": "web",
            "since": f"1970-01-01T00:00:0{since}Z",
        }
        for name, since in (("s1", 1), ("s2", 2))
    ]


NAMES = ["a/b", "ä", "%", "a b?c#d", "sessions", "\U0001f600", "../admin", "x" * 255]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_asked_for(api, nodes, name):
    nodes.open("s1", name, name)
    Token.objects.issue(name)
    path = quote(name, safe="")
    assert api.get(f"/api/v1/keys/{path}").json()["online"]
    assert api.get(f"/api/v1/rooms/{path}").json()["results"] == [{"key": name, "session": "s1"}]
    assert api.get(f"{TOKENS}/{path}").json()["key"] == name
    assert api.delete(f"/api/v1/keys/{path}/sessions").json() == {"closed": 1}


BAD_NAMES = ["%00", "a%01", "x" * 256, "%7f", "a%09b"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/api/v1/keys/{}"),
        ("delete", "/api/v1/keys/{}/sessions"),
        ("get", "/api/v1/rooms/{}"),
        ("get", "/api/v1/tokens/{}"),
        ("delete", "/api/v1/tokens/{}"),
        ("get", "/api/v1/tokens?key={}"),
    ],
)
def test_a_bad_name_is_a_problem(api, method, path, name):
    check_problem(getattr(api, method)(path.format(name)), 400, "bad_request")


@pytest.mark.parametrize("name", ["%0a", "%ff", "%ED%A0%80", ""])
def test_a_name_that_is_none_is_a_mistake_of_the_caller(api, nodes, name):
    for path in (f"/api/v1/keys/{name}", f"/api/v1/rooms/{name}", f"{TOKENS}/{name}"):
        answer = api.get(path)
        assert answer.status_code in {200, 400, 404}
        assert "json" in answer["Content-Type"]


@pytest.mark.django_db(transaction=True)
async def test_kicking_a_key_orders_its_sessions_to_close(api_key, listen):
    heard = await listen(key_group("nobody"))
    answer = await in_thread(api_key.delete, "/api/v1/keys/nobody/sessions")
    assert (answer.status_code, answer.json()) == (202, {"closed": 0})
    (order,) = await heard()
    assert (order["type"], order["sessions"], order["code"]) == ("imgo.close", [], 4504)


@pytest.fixture
def api_key(imgo):
    """A client whose key is not in the database."""
    imgo(API_KEY="bootstrap")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Api-Key bootstrap")
    return client


def test_kicking_counts_the_sessions(api, nodes):
    nodes.open("s1", "u1")
    nodes.open("s2", "u1")
    assert api.delete("/api/v1/keys/u1/sessions").json() == {"closed": 2}


# Rooms, nodes, totals


@pytest.fixture
def crowd(nodes):
    """Two nodes; ten sessions in the lobby, some of them in rooms of three and of one."""
    nodes.start("n2", 9)
    for n in range(10):
        rooms = ["lobby"] + ["three"] * (n < 3) + ["zwei", "one"][: 1 if n == 3 else 2 * (n == 4)]
        nodes.open(f"s{n}", f"u{n}", *rooms, node="n1" if n % 2 else "n2")
    return nodes


def test_rooms_are_listed_fullest_first(api, crowd):
    answer = api.get("/api/v1/rooms").json()
    assert answer["count"] == 4
    assert [(row["room"], row["sessions"]) for row in answer["results"]] == [
        ("lobby", 10),
        ("three", 3),
        ("zwei", 2),
        ("one", 1),
    ]


def test_rooms_come_in_pages(api, crowd):
    answer = api.get("/api/v1/rooms?limit=2&offset=1").json()
    assert answer["count"] == 4
    assert [row["room"] for row in answer["results"]] == ["three", "zwei"]
    assert api.get("/api/v1/rooms?offset=99").json() == {"count": 4, "results": []}


def test_a_room_has_members_in_pages(api, crowd):
    answer = api.get("/api/v1/rooms/lobby?limit=3&offset=8").json()
    assert answer == {
        "room": "lobby",
        "sessions": 10,
        "count": 10,
        "results": [{"key": f"u{n}", "session": f"s{n}"} for n in (8, 9)],
    }


def test_a_room_with_nobody_in_it_is_not_found(api, nodes):
    detail = check_problem(api.get("/api/v1/rooms/empty"), 404, "not_found")
    assert "'empty'" in detail


def test_nodes_are_listed_by_number(api, crowd):
    crowd.drain("n2")
    answer = api.get("/api/v1/nodes").json()
    shared = {"since": "1970-01-01T00:01:40Z", "sessions": 5}
    assert answer["count"] == 2
    first = {"id": "n1", "number": 7, "name": "n1:8000", "draining": False}
    assert answer["results"][0] == first | shared
    second = {"id": "n2", "number": 9, "name": "n2:8000", "draining": True}
    assert answer["results"][1] == second | shared


def test_stats_are_totals(api, crowd):
    answer = api.get("/api/v1/stats").json()
    assert answer == {"nodes": 2, "sessions": 10, "rooms": 4, "hooks": []}


SENSELESS = [
    *("limit=0", "limit=-1", "limit=1001", "limit=", "limit=x", "limit=1.5", "limit=%00"),
    *("offset=-1", "offset=x", "offset=1000000001", "offset=" + "9" * 5000),
]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (path, query)
        for path in ("/api/v1/rooms", "/api/v1/rooms/lobby", TOKENS)
        for query in SENSELESS
        if (path, query) != ("/api/v1/rooms/lobby", "limit=0")
    ],
    ids=lambda part: part[:20],
)
def test_a_page_that_makes_no_sense_is_a_problem(api, crowd, path, query):
    detail = check_problem(api.get(f"{path}?{query}"), 400, "bad_request")
    assert detail.startswith(query.partition("=")[0])


def test_a_room_with_limit_0_is_counted_and_lists_nobody(api, crowd):
    answer = api.get("/api/v1/rooms/lobby?limit=0").json()
    assert (answer["count"], answer["results"]) == (10, [])


@pytest.mark.usefixtures("registry_down")
@pytest.mark.parametrize(
    "path",
    ["/api/v1/keys/u1", "/api/v1/rooms", "/api/v1/rooms/r", "/api/v1/nodes", "/api/v1/stats"],
)
def test_without_redis_what_is_asked_of_it_is_unavailable(api, path):
    check_problem(api.get(path), 503, "unavailable")


# Tokens


def test_a_token_is_made_and_shown_this_once(api):
    answer = send(api, {"key": "u1", "rooms": ["a", "b.*"], "expires_in": 60}, TOKENS)
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == {"key", "rooms", "join", "info", "created_at", "expires_at", "token"}
    assert (made["key"], made["rooms"]) == ("u1", ["a", "b.*"])
    assert Token.objects.get().digest == digest(made["token"])
    for path in (TOKENS, f"{TOKENS}?key=u1", f"{TOKENS}/u1"):
        later = api.get(path)
        assert later.status_code == 200
        assert "u1" in later.content.decode()
        assert made["token"] not in later.content.decode()
        assert digest(made["token"]) not in later.content.decode()


def test_token_that_joins_more_rooms_than_a_session_may_be_in_is_refused(api, imgo):
    imgo(MAX_ROOMS_PER_SESSION=2)
    assert send(api, {"key": "u1", "join": ["a", "b"]}, TOKENS).status_code == 201
    answer = send(api, {"key": "u2", "join": ["a", "b", "c"]}, TOKENS)
    check_problem(answer, 400, "bad_request")
    assert answer.json()["detail"] == (
        "join has 3 rooms. A session may be in 2 rooms at most (MAX_ROOMS_PER_SESSION)."
    )
    assert list(Token.objects.values_list("key", flat=True)) == ["u1"]


def test_a_token_may_be_chosen_and_replaces_the_old_one(api):
    send(api, {"key": "u1"}, TOKENS)
    assert send(api, {"key": "u1", "token": "mine"}, TOKENS).json()["token"] == "mine"
    token = Token.objects.get()
    assert (token.digest, token.expires_at, token.rooms) == (digest("mine"), None, None)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"key": ""},
        {"key": 1},
        {"key": "a\0"},
        {"key": "x" * 256},
        {"key": "u1", "token": "a\0"},
        {"key": "u1", "token": "x" * 1025},
        {"key": "u1", "token": None},
        {"key": "u1", "expires_in": 0},
        {"key": "u1", "expires_in": -1},
        {"key": "u1", "expires_in": 1.5},
        {"key": "u1", "expires_in": 10**12},
        {"key": "u1", "rooms": "a"},
        {"key": "u1", "rooms": [""]},
        {"key": "u1", "rooms": [1]},
        {"key": "u1", "unknown": 1},
        [],
        [{"key": "u1"}],
        b"",
        b"\xff",
        b'{"key": "\xff"}',
        b"{" * 10_000,
    ],
    ids=lambda data: repr(data)[:40],
)
def test_a_bad_token_request_is_a_problem(api, data):
    check_problem(send(api, data, TOKENS), 400, "bad_request")
    assert not Token.objects.exists()


def test_tokens_are_listed_by_key_in_pages(api):
    for n in (3, 1, 2):
        Token.objects.issue(f"u{n}")
    answer = api.get(f"{TOKENS}?limit=2&offset=1").json()
    assert (answer["count"], [row["key"] for row in answer["results"]]) == (3, ["u2", "u3"])
    answer = api.get(f"{TOKENS}?key=u1").json()
    assert (answer["count"], [row["key"] for row in answer["results"]]) == (1, ["u1"])
    assert api.get(f"{TOKENS}?key=nobody").json() == {"count": 0, "results": []}


def test_a_revoked_token_is_gone(api):
    Token.objects.issue("u1")
    Token.objects.issue("u2")
    answer = api.delete(f"{TOKENS}/u1")
    assert (answer.status_code, answer.content) == (204, b"")
    assert [token.key for token in Token.objects.all()] == ["u2"]
    check_problem(api.get(f"{TOKENS}/u1"), 404, "not_found")
    check_problem(api.delete(f"{TOKENS}/u1"), 404, "not_found")


# Whatever else is asked


@pytest.mark.parametrize(
    "path", ["/api/", "/api/v1", "/api/v1/", "/api/v1/pushes/", "/api/v2/pushes", "/api/v1/%00"]
)
def test_an_unknown_path_is_a_problem(api, path):
    check_problem(api.get(path), 404, "not_found")
    check_problem(api.post(path), 404, "not_found")


def test_the_wrong_method_is_a_problem(api):
    answer = api.get(PUSHES)
    check_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer["Allow"]


def test_who_is_nobody_or_may_not_gets_a_problem_too(client, caller):
    answer = client.get("/api/v1/nodes")
    check_problem(answer, 401, "not_authenticated")
    assert answer["WWW-Authenticate"] == "Api-Key"
    check_problem(caller("push").get("/api/v1/nodes"), 403, "forbidden")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "", "x"])
def test_the_answer_is_json_whatever_is_asked_for(api, nodes, accept):
    answer = api.get("/api/v1/nodes", HTTP_ACCEPT=accept)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


def test_a_query_with_thousands_of_names_is_a_problem(api, nodes):
    query = "&".join(f"a{n}=1" for n in range(20_000))
    check_problem(api.get(f"/api/v1/rooms?{query}"), 400, "bad_request")
    check_problem(APIClient().get(f"/api/v1/rooms?{query}"), 400, "bad_request")


def test_no_session_cookie_is_needed_or_believed(admin_client):
    assert admin_client.get("/api/v1/nodes").status_code == 401


def test_a_bug_is_an_internal_error_and_logged(api, monkeypatch, caplog):
    monkeypatch.setattr("push.api.v1.get_registry", lambda: 1 / 0)
    api.raise_request_exception = False
    check_problem(api.get("/api/v1/nodes"), 500, "internal_error")
    assert "ZeroDivisionError" in caplog.text
