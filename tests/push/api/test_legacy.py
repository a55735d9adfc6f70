"""imgo's own paths: imgo's parameters, imgo's answers."""

import json
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.login_throttle import LoginThrottle
from accounts.models import Token, digest
from imgo_site.errors import TooManyAttempts
from imgo_site.process_parts import process
from offline.models import RECEIVED, Message, Outbox, Pending
from offline.partitions import partition_of
from offline.settlement import record_receipts
from offline.values import Receipt
from push.accept.accept import push_to_key
from push.status.instance import Instance
from tests import in_thread

OK, INTERNAL, PARAMETER, TOKEN, NO_SERVER = 1, 65535, 65534, 65533, 1001
pytestmark = pytest.mark.django_db


def check_ret(answer, status: int, ret: int) -> None:
    assert answer["Content-Type"] == "application/json"
    assert answer.json() == {"ret": ret}
    assert answer.status_code == status


def check_bad(answer) -> None:
    check_ret(answer, 400, PARAMETER)


def send(api: APIClient, path: str, body: bytes = b'{"n":1}', **headers: Any):
    """As old tools do it: curl -d says that it is a form."""
    kind = "application/x-www-form-urlencoded"
    return api.generic("POST", path, body, content_type=headers.pop("content_type", kind))


def owed() -> list[str]:
    return list(Pending.objects.order_by("pk").values_list("key", flat=True))


# Pushing

BAD_NUMBERS = ["", "x", "-1", "1.5", "1e3", "%00", "%01", "%ff", "1%00", "0x1", "+1", "%201"]
BAD_UIDS = [*BAD_NUMBERS, str(2**63), "9" * 5000, "%D9%A1"]
BAD_RIDS = [*BAD_NUMBERS, str(2**31), str(2**32 + 1), "9" * 5000]


def test_a_push_to_one_user(api, queued, committed):
    with committed():
        answer = send(api, "/1/push?uid=42")
    check_ret(answer, 200, OK)
    message = Message.objects.get()
    assert (bytes(message.body), message.is_json, message.stored) == (b'{"n":1}', True, True)
    assert owed() == ["42"]
    assert queued() == {partition_of("42", 4)}


def test_the_largest_user_id(api):
    check_ret(send(api, f"/1/push?uid={2**63 - 1}"), 200, OK)
    assert owed() == [str(2**63 - 1)]


def test_user_zero_is_a_user_as_in_imgos_first_example(api):
    check_ret(send(api, "/1/push?uid=0", b'{"test":1}'), 200, OK)
    check_ret(send(api, "/1/pushs", b'{"u": [0, 1], "m": 1}'), 200, OK)
    assert owed() == ["0", "0", "1"]
    check_bad(send(api, "/1/admin/token/new", b"uid=0&token=t&expire=60"))


@pytest.mark.parametrize("body", [b'{"u": [], "m": 1}', b'{"u": [], "m": {"test": 1}}'])
def test_push_to_an_empty_list_is_done_at_once(api, body):
    check_ret(send(api, "/1/pushs", body), 200, OK)
    assert not Message.objects.exists()


def test_a_user_id_with_zeros_in_front_is_the_same_user(api):
    check_ret(send(api, "/1/push?uid=007"), 200, OK)
    assert owed() == ["7"]


@pytest.mark.parametrize("uid", BAD_UIDS, ids=lambda uid: uid[:8])
def test_a_bad_user_id(api, uid):
    check_bad(send(api, f"/1/push?uid={uid}"))
    assert not Message.objects.exists()


@pytest.mark.parametrize("path", ["/1/push", "/1/push/room", "/1/push?UID=1", "/1/push/room?r=1"])
def test_a_push_to_nobody(api, path):
    check_bad(send(api, path))


@pytest.mark.parametrize(
    "path", ["/1/push?uid=1", "/1/push/room?rid=1", "/1/push/all"], ids=["one", "room", "all"]
)
@pytest.mark.parametrize(
    ("body", "is_json"),
    [
        (b"plain text", False),
        (b"a=1&b=2", False),
        (b"\xff\xfe\0", False),
        (b' { "a" : 1 }\n', True),
        (b'"text"', True),
        (b"\0", False),
        (b"[" * 50_000, False),
        (b"1" * 5000, False),
        (b"NaN", False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_body_is_kept_as_it_was_sent(api, path, body, is_json):
    check_ret(send(api, path, body), 200, OK)
    message = Message.objects.get()
    assert (bytes(message.body), message.is_json) == (body, is_json)


@pytest.mark.parametrize("path", ["/1/push?uid=1", "/1/push/room?rid=1", "/1/push/all", "/1/pushs"])
def test_an_empty_body(api, path):
    check_bad(send(api, path, b""))


@pytest.mark.parametrize(
    "path",
    ["/1/push?uid=1", "/1/pushs", "/1/push/room?rid=1", "/1/push/all", "/1/admin/token/new"],
)
def test_a_body_above_a_limit(api, imgo, path):
    imgo(MAX_REQUEST=100)
    check_ret(send(api, path, b"x" * 101), 413, PARAMETER)


@pytest.mark.parametrize("path", ["/1/push?uid=1", "/1/push/room?rid=1", "/1/push/all"])
def test_a_message_above_its_limit(api, imgo, path):
    imgo(MAX_BODY=3)
    check_ret(send(api, path, b"1234"), 413, PARAMETER)
    check_ret(send(api, path, b"123"), 200, OK)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data", "", "x"])
def test_the_content_type_does_not_matter(api, kind):
    check_ret(send(api, "/1/push?uid=1", content_type=kind), 200, OK)
    assert bytes(Message.objects.get().body) == b'{"n":1}'


def test_a_push_to_many_users(api):
    check_ret(send(api, "/1/pushs", b'{"u": [1, 2,3, 2], "m": {"b": 1,  "a": 2.0}}'), 200, OK)
    assert owed() == ["1", "2", "3"]
    assert bytes(Message.objects.get().body) == b'{"b": 1,  "a": 2.0}'


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        b"[]",
        b"null",
        b'{"u": [1]}',
        b'{"m": 1}',
        b'{"u": 1, "m": 1}',
        b'{"u": null, "m": 1}',
        b'{"u": ["1"], "m": 1}',
        b'{"u": [1.5], "m": 1}',
        b'{"u": [true], "m": 1}',
        b'{"u": [1, -1], "m": 1}',
        b'{"u": [9223372036854775808], "m": 1}',
        b'{"u": [' + b"9" * 5000 + b'], "m": 1}',
        b'{"u": [1], "m": }',
        b'{"u": [1], "m": "\xff"}',
        b'{"u": [1], "m": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff",
        b'{"u":' * 50_000,
    ],
    ids=lambda body: repr(body)[:30],
)
def test_a_bad_push_to_many(api, body):
    check_bad(send(api, "/1/pushs", body))
    assert not Message.objects.exists()


def test_too_many_users(api, imgo):
    imgo(MAX_KEYS=2)
    check_ret(send(api, "/1/pushs", b'{"u": [1, 2, 3], "m": 1}'), 413, PARAMETER)


@pytest.mark.parametrize("rid", ["0", "1", str(2**31 - 1)])
def test_a_push_to_a_room(api, rid):
    check_ret(send(api, f"/1/push/room?rid={rid}&ensure=true"), 200, OK)
    message = Message.objects.get()
    assert (message.audience, message.room) == ("room", rid)


@pytest.mark.parametrize("rid", BAD_RIDS, ids=lambda rid: rid[:8])
def test_a_bad_room(api, rid):
    check_bad(send(api, f"/1/push/room?rid={rid}"))
    assert not Message.objects.exists()


@pytest.mark.parametrize("ensure", ["", "1", "true", "0", "false", "perhaps", "%ff"])
def test_any_ensure_is_taken(api, ensure):
    check_ret(send(api, f"/1/push/room?rid=1&ensure={ensure}"), 200, OK)


def test_a_push_to_all(api):
    check_ret(send(api, "/1/push/all"), 200, OK)
    assert Message.objects.get().audience == "all"


def test_without_the_database_nothing_is_accepted(api, database_down):
    check_ret(send(api, "/1/push?uid=1"), 503, INTERNAL)


@pytest.mark.django_db(transaction=True)
def test_without_the_broker_pushes_are_accepted_and_wait(api, broker_down, committed):
    with committed():
        check_ret(send(api, "/1/push/room?rid=1"), 200, OK)
        check_ret(send(api, "/1/push?uid=1"), 200, OK)
    assert Outbox.objects.count() == 2


# Counting, servers


def test_rooms_are_counted(api, nodes):
    nodes.open("s1", "1", "7", "lobby", "007")
    nodes.open("s2", "2", "7")
    answer = api.get("/1/count?type=room")
    assert answer.json() == {
        "ret": OK,
        "data": [
            {"RoomId": "007", "Count": 1},
            {"RoomId": 7, "Count": 2},
            {"RoomId": "lobby", "Count": 1},
        ],
    }


def test_servers_are_counted(api, nodes):
    nodes.start("n2", 9)
    nodes.open("s1", "1")
    answer = api.get("/1/count?type=server")
    data = [{"Server": 7, "Count": 1}, {"Server": 9, "Count": 0}]
    assert answer.json() == {"ret": OK, "data": data}


@pytest.mark.parametrize("query", ["", "type=", "type=user", "type=%00", "type=%ff", "Type=room"])
def test_nothing_else_is_counted(api, query):
    check_bad(api.get(f"/1/count?{query}"))


def test_a_server_can_be_deleted(api, nodes):
    nodes.open("s1", "1")
    check_ret(send(api, "/1/server/del?server=7", b""), 200, OK)
    assert api.get("/1/count?type=server").json()["data"] == []
    check_ret(send(api, "/1/server/del?server=7", b""), 404, NO_SERVER)


@pytest.mark.parametrize("server", BAD_RIDS, ids=lambda rid: rid[:8])
def test_a_bad_server(api, server):
    check_bad(send(api, f"/1/server/del?server={server}", b""))


@pytest.mark.usefixtures("registry_down")
def test_without_redis_nothing_can_be_counted(api):
    for kind in ("room", "server"):
        check_ret(api.get(f"/1/count?type={kind}"), 503, INTERNAL)
    check_ret(send(api, "/1/server/del?server=7", b""), 503, INTERNAL)


# Tokens

NEW = "/1/admin/token/new"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (NEW, b"uid=42&token=secret&expire=60"),
        (f"{NEW}?uid=42&token=secret&expire=60", b""),
        (f"{NEW}?uid=42", b"token=secret&expire=60"),
        (NEW, b'{"uid": 42, "token": "secret", "expire": 60}'),
        (NEW, b'\n {"uid": "42", "token": "secret", "expire": "60", "more": []}'),
        (f"{NEW}?uid=1", b"uid=42&token=secret&expire=60"),
    ],
)
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json"])
def test_a_token_is_given(api, path, body, kind):
    before = timezone.now()
    check_ret(send(api, path, body, content_type=kind), 200, OK)
    token = Token.objects.get()
    assert (token.key, token.digest) == ("42", digest("secret"))
    assert 60 <= (token.expires_at - before).total_seconds() < 90


def test_a_token_in_the_query_can_be_any_text(api):
    path = f"{NEW}?uid=42&expire=60&token=%C3%A4%2B%26"
    check_ret(send(api, path, b""), 200, OK)
    assert Token.objects.get().digest == digest("ä+&")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"uid=42&token=t",
        b"uid=42&expire=60",
        b"token=t&expire=60",
        b"uid=42&token=&expire=60",
        b"uid=42&token=t&expire=0",
        b"uid=42&token=t&expire=-1",
        b"uid=42&token=t&expire=x",
        b"uid=42&token=t&expire=2147483648",
        b"uid=0&token=t&expire=60",
        b"uid=-1&token=t&expire=60",
        b"uid=u1&token=t&expire=60",
        b"uid=42&token=%00&expire=60",
        b"uid=42&token=a%0ab&expire=60",
        b"uid=42&token=" + b"t" * 1025 + b"&expire=60",
        b"\xff",
        b"%",
        b"&&==&",
        b"{",
        b"{}",
        b'{"uid": 42, "token": 7, "expire": 60}',
        b'{"uid": [42], "token": "t", "expire": 60}',
        b'{"uid": 42, "token": "\\ud800", "expire": 60}',
        b'{"uid": 42.5, "token": "t", "expire": 60}',
        b'{"uid": true, "token": "t", "expire": 60}',
        b'{"uid": 42, "token": "t", "expire": NaN}',
        b'{"uid": 42, "token": "t", "expire": ' + b"9" * 5000 + b"}",
        b'{"uid": ' * 50_000,
        b"&".join(b"a%d=1" % n for n in range(20_000)),
    ],
    ids=lambda body: repr(body)[2:40],
)
def test_a_bad_token_request(api, body):
    check_bad(send(api, NEW, body))
    assert not Token.objects.exists()


# Offline messages


@pytest.mark.parametrize(("rid", "join"), [("", []), ("&rid=0", ["0"]), ("&rid=7", ["7"])])
def test_new_token_with_a_room_number_joins_that_room(api, rid, join):
    form = f"uid=42&token=t&expire=60{rid}".encode()
    check_ret(send(api, "/1/admin/token/new", form), 200, OK)
    assert Token.objects.get().join == join


@pytest.mark.parametrize("rid", BAD_RIDS, ids=lambda rid: rid[:8])
def test_new_token_with_a_bad_room_number_is_refused(api, rid):
    form = f"uid=42&token=t&expire=60&rid={rid}".encode()
    check_bad(send(api, "/1/admin/token/new", form))
    null = b'{"uid": 42, "token": "t", "expire": 60, "rid": null}'
    check_bad(send(api, "/1/admin/token/new", null))
    assert not Token.objects.exists()


@pytest.fixture
def subscriber():
    """Asks for the messages of user 42, whose token is t."""
    Token.objects.issue("42", token="t", expires_in=60)
    client = APIClient()

    def ask(**changes: Any):
        query = {"uid": "42", "token": "t", "mid": "0", **changes}
        return client.get("/1/msg/get", {k: v for k, v in query.items() if v is not None})

    return ask


def messages(answer) -> list:
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    found = answer.json()
    assert found["ret"] == 0
    return found["data"]["msgs"]


def test_a_subscriber_reads_what_is_pending_and_it_stays(subscriber):
    bodies = [{"n": 1}, "text", None, [1.5]]
    ids = [push_to_key("42", body) for body in bodies]
    push_to_key("43", "not mine")
    for _ in range(2):
        found = messages(subscriber())
        assert found == [
            {"msg": body, "mid": one, "gid": 0} for one, body in zip(ids, bodies, strict=True)
        ]
    assert [m["mid"] for m in messages(subscriber(mid=ids[1]))] == ids[2:]
    assert messages(subscriber(mid=ids[-1])) == []


def test_what_was_acknowledged_or_has_expired_is_not_there(subscriber):
    gone, kept = push_to_key("42", 1), push_to_key("42", 2)
    record_receipts([Receipt(gone, "42", RECEIVED, "s1")])
    expired = push_to_key("42", 3)
    Pending.objects.filter(message=expired).update(expires_at=timezone.now())
    assert [m["mid"] for m in messages(subscriber())] == [kept]


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b"plain \xff text", "plain \ufffd text"),
        (b'"\\ud800"', "\ud800"),
        ('"ä\u2028"'.encode(), "ä\u2028"),
        (b"1" * 5000, "1" * 5000),
    ],
    ids=["text", "half a character", "line separator", "digits"],
)
def test_any_message_is_json_in_the_answer(subscriber, body, seen):
    push_to_key("42", body)
    assert [m["msg"] for m in messages(subscriber())] == [seen]


def refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@pytest.mark.parametrize(
    "body",
    [b"1e999", b"-1e999", b"1" * 5000, *(b"[" * n + b"]" * n for n in range(100, 1000, 100))],
    ids=lambda body: f"{body[:6]} {len(body)}",
)
def test_whatever_the_api_accepts_can_be_read_back(api, subscriber, body):
    data = b'{"to": {"key": "42"}, "body": ' + body + b"}"
    answer = api.post("/api/v1/pushes", data, content_type="application/json")
    assert answer.status_code in {202, 400}
    send(api, "/1/push?uid=42", body)
    later = subscriber()
    assert later.status_code == 200
    text = later.content.decode()
    assert len(json.loads(text, parse_constant=refuse, parse_int=str)["data"]["msgs"]) >= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "wrong"},
        {"token": "T"},
        {"uid": "43"},
        {"token": "t\0"},
        {"token": "ä" * 2000},
    ],
    ids=str,
)
def test_a_wrong_token(subscriber, changes):
    push_to_key("43", 1)
    check_ret(subscriber(**changes), 401, TOKEN)


@pytest.fixture
def attempts() -> LoginThrottle:
    """The limiter of the instance, which has counted nothing yet."""
    return process.get(Instance).guard


def test_guessing_by_msg_get_is_slowed_down(subscriber, attempts, imgo):
    imgo(AUTH_FAILURES=3)
    for _ in range(3):
        check_ret(subscriber(token="wrong"), 401, TOKEN)
    subscriber(token="wrong")  # one attempt a second is looked at
    check_ret(subscriber(token="wrong"), 429, INTERNAL)
    check_ret(subscriber(), 429, INTERNAL)  # a right guess is no better off
    assert subscriber(token="wrong", cb="cb").content.decode() == 'cb({"ret": 65535})'


async def test_guessing_by_msg_get_counts_for_sessions_too(subscriber, attempts, imgo, monkeypatch):
    imgo(AUTH_FAILURES=3)
    monkeypatch.setattr("accounts.login_throttle.WAITING_MAX", 0)
    for _ in range(3):
        await in_thread(lambda: subscriber(token="wrong"))
    with pytest.raises(TooManyAttempts):
        await attempts.admit("127.0.0.1")


def test_an_expired_token(subscriber):
    Token.objects.update(expires_at=timezone.now())
    check_ret(subscriber(), 401, TOKEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": None},
        {"uid": "x"},
        {"uid": "-1"},
        {"uid": str(2**63)},
        {"token": None},
        {"token": ""},
        {"mid": None},
        {"mid": "-1"},
        {"mid": "x"},
        {"mid": str(2**63)},
        {"cb": "alert(1)//"},
        {"cb": "a.b"},
        {"cb": "a b"},
        {"cb": "<script>"},
        {"cb": "a" * 65},
        {"cb": "1a"},
        {"cb": "a\n"},
        {"cb": "ä"},
    ],
    ids=str,
)
def test_a_bad_question(subscriber, changes):
    check_bad(subscriber(**changes))


@pytest.mark.parametrize("callback", ["cb", "_cb$1", "$", "jQuery1234_5678"])
def test_jsonp(subscriber, callback):
    one = push_to_key("42", "</script>\u2028")
    answer = subscriber(cb=callback)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/javascript; charset=utf-8"
    assert answer["X-Content-Type-Options"] == "nosniff"
    text = answer.content.decode("ascii")
    assert text.startswith(f"{callback}(")
    assert text.endswith(")")
    msgs = [{"msg": "</script>\u2028", "mid": one, "gid": 0}]
    assert json.loads(text[len(callback) + 1 : -1]) == {"ret": 0, "data": {"msgs": msgs}}


def test_jsonp_tells_the_callback_of_errors_too(subscriber):
    for changes, ret in (({"token": "wrong"}, TOKEN), ({"uid": "x"}, PARAMETER)):
        answer = subscriber(cb="cb", **changes)
        assert answer.status_code == 200
        assert answer.content.decode() == f'cb({{"ret": {ret}}})'


@pytest.mark.django_db(transaction=True)
def test_jsonp_tells_the_callback_that_the_database_is_away(database_down):
    answer = APIClient().get("/1/msg/get?uid=42&token=t&mid=0&cb=cb")
    assert answer.content.decode() == f'cb({{"ret": {INTERNAL}}})'


def test_no_api_key_opens_the_messages_of_a_user(api):
    push_to_key("42", 1)
    check_ret(api.get("/1/msg/get?uid=42&token=t&mid=0"), 401, TOKEN)


# Who may, and whatever else is asked


def test_who_is_nobody_or_may_not(client, caller):
    check_ret(client.post("/1/push?uid=1"), 401, TOKEN)
    check_ret(send(caller("read"), "/1/push?uid=1"), 403, TOKEN)


@pytest.mark.parametrize("path", ["/1/", "/1/push/", "/1/nothing", "/1/push/rooms", "/1/%00"])
def test_an_unknown_path(api, path):
    check_ret(api.get(path), 404, PARAMETER)
    check_ret(send(api, path), 404, PARAMETER)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/1/push?uid=1"), ("POST", "/1/count?type=room"), ("POST", "/1/msg/get")],
)
def test_wrong_method_is_refused_as_imgo_did(api, method, path):
    answer = api.generic(method, path, b"")
    assert (answer.status_code, answer.content) == (405, b"Method Not Allowed\n")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert "GET" in answer["Allow"] or "POST" in answer["Allow"]


@pytest.mark.parametrize("path", ["/1/push?uid=1", "/1/msg/get?uid=1&token=t&mid=0"])
def test_wrong_host_is_told_what_is_wrong(api, path):
    answer = api.get(path, HTTP_HOST="evil.example")
    assert (answer.status_code, answer.json()["ret"]) == (400, PARAMETER)
    assert "DJANGO_ALLOWED_HOSTS" in answer.json()["message"]


def test_a_query_with_thousands_of_names(api):
    query = "&".join(f"a{n}=1" for n in range(20_000))
    check_bad(send(api, f"/1/push?uid=1&{query}"))


@pytest.mark.parametrize("accept", ["text/html", "text/plain", "*/*", "application/xml", ""])
def test_an_old_tool_is_answered_whatever_it_says_it_accepts(api, accept):
    answer = api.generic("POST", "/1/push?uid=1", b"1", HTTP_ACCEPT=accept)
    check_ret(answer, 200, OK)


def test_a_bug_is_an_internal_error_and_logged(api, monkeypatch, caplog):
    monkeypatch.setattr("push.api.legacy.get_registry", lambda: 1 / 0)
    api.raise_request_exception = False
    check_ret(api.get("/1/count?type=room"), 500, INTERNAL)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_many_at_once_are_all_accepted(imgo):
    import asyncio

    imgo(API_KEY="bootstrap")

    def push(n: int) -> int:
        client = APIClient()
        path = f"/1/push?uid={n + 1}&apikey=bootstrap"
        return client.generic("POST", path, b"1").status_code

    answers = await asyncio.gather(*(in_thread(push, n) for n in range(40)))
    assert set(answers) == {200}
    assert await in_thread(Pending.objects.count) == 40
