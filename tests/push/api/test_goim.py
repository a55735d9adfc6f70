"""goim's paths: goim's parameters, goim's answers."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from offline.models import Message, Pending

pytestmark = pytest.mark.django_db
OK = {"code": 0, "message": ""}
PATHS = [
    ("POST", "/goim/push/keys?operation=1000&keys=a"),
    ("POST", "/goim/push/mids?operation=1000&mids=1"),
    ("POST", "/goim/push/room?operation=1000&type=live&room=1"),
    ("POST", "/goim/push/all?operation=1000"),
    ("GET", "/goim/online/top?type=live&limit=1"),
    ("GET", "/goim/online/room?type=live&rooms=1"),
    ("GET", "/goim/online/total"),
    ("GET", "/goim/nodes/weighted?platform=web"),
    ("GET", "/goim/nodes/instances"),
]


def send(api: APIClient, path: str, body: bytes = b'{"n":1}') -> Any:
    """As curl -d does it."""
    return api.generic("POST", path, body, content_type="application/x-www-form-urlencoded")


def check_code(answer: Any, status: int, says: str = "") -> None:
    assert answer["Content-Type"] == "application/json"
    assert answer.status_code == status
    told = answer.json()
    assert set(told) == {"code", "message"}
    assert told["code"] == -status
    assert told["message"]
    assert says in told["message"]


def pushed() -> tuple[Any, ...]:
    """(op, body, keys, room, stored, speed) of the one message."""
    found = Message.objects.get()
    return found.op, bytes(found.body), found.keys, found.room, found.stored, found.speed


def owed() -> list[str]:
    return sorted(Pending.objects.values_list("key", flat=True))


def test_keys_are_keys_and_wait_while_they_are_away(api, queued):
    answer = send(api, "/goim/push/keys?operation=1000&keys=a&keys=b")
    assert answer.json() == OK
    assert pushed() == (1000, b'{"n":1}', ["a", "b"], "", True, 0)
    assert owed() == ["a", "b"]


def test_the_keys_of_goims_connections_are_there_or_not(api, queued, imgo):
    imgo(GOIM_TRUSTED=True)
    assert send(api, "/goim/push/keys?operation=1000&keys=a").json() == OK
    assert pushed() == (1000, b'{"n":1}', ["a"], "", False, 0)
    assert owed() == []


@pytest.mark.parametrize("query", ["mids=1&mids=2", "mids=1,2"])
def test_mids_are_users(api, queued, query):
    assert send(api, f"/goim/push/mids?operation=1000&{query}", b"\x00\xff").json() == OK
    assert pushed() == (1000, b"\x00\xff", ["1", "2"], "", True, 0)
    assert not Message.objects.get().is_json


def test_a_room_has_a_type(api, queued):
    assert send(api, "/goim/push/room?operation=1001&type=live&room=1000").json() == OK
    assert pushed() == (1001, b'{"n":1}', None, "live://1000", False, 0)


@pytest.mark.parametrize(("query", "speed"), [("", 0), ("&speed=", 0), ("&speed=100", 100)])
def test_everyone_may_take_its_time(api, queued, query, speed):
    assert send(api, f"/goim/push/all?operation=5{query}").json() == OK
    assert pushed() == (5, b'{"n":1}', None, "", False, speed)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("keys?operation=1000", "keys is missing"),
        ("keys?operation=1000&keys=", "key"),
        ("keys?keys=a", "operation"),
        ("keys?operation=x&keys=a", "operation"),
        ("keys?operation=9&keys=a", "operation must be 5, or from 1000 to 2147483647"),
        ("keys?operation=2147483648&keys=a", "operation"),
        ("mids?operation=1000", "mids"),
        ("mids?operation=1000&mids=0", "mids"),
        ("mids?operation=1000&mids=a", "mids"),
        ("mids?operation=1000&mids=1,", "mids"),
        ("room?operation=1000&room=1", "type is missing"),
        ("room?operation=1000&type=live", "room is missing"),
        ("all?operation=1000&speed=-1", "speed"),
        ("all?operation=1000&speed=fast", "speed"),
        ("all", "operation"),
    ],
)
def test_a_bad_push_is_answered_by_what_is_wrong(api, queued, path, says):
    check_code(send(api, f"/goim/push/{path}"), 400, says)
    assert not Message.objects.exists()


def test_a_push_without_a_body_is_refused(api):
    check_code(send(api, "/goim/push/all?operation=1000", b""), 400, "body")


def test_a_body_may_be_too_large(api, imgo):
    imgo(MAX_BODY=3)
    check_code(send(api, "/goim/push/all?operation=1000"), 413)


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_every_path_needs_an_api_key_with_its_scope(caller, method, path):
    check_code(APIClient().generic(method, path, b"1"), 401)
    check_code(caller("tokens").generic(method, path, b"1"), 403, "scope")
    lets_in = caller("push" if method == "POST" else "read")
    assert lets_in.generic(method, path, b"1").json()["code"] == 0


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_trusted_networks_need_none(imgo, method, path):
    imgo(LEGACY_TRUSTED_NETWORKS=["127.0.0.0/8"])
    assert APIClient().generic(method, path, b"1").json()["code"] == 0


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_the_other_method_is_refused(api, method, path):
    check_code(api.generic("GET" if method == "POST" else "POST", path, b"1"), 405)


def test_what_goim_has_not_is_not_here(api):
    check_code(api.get("/goim/push/nobody"), 404)


# Who is where


def test_the_fullest_rooms_of_a_type_come_first(api, nodes):
    nodes.open("s1", "a", "live://1", "live://2", "lively://9")
    nodes.open("s2", "b", "live://2", "2")
    answer = api.get("/goim/online/top?type=live&limit=10").json()
    rooms = [{"room_id": "2", "count": 2}, {"room_id": "1", "count": 1}]
    assert answer == {**OK, "data": rooms}
    answer = api.get("/goim/online/top?type=live&limit=1").json()
    assert answer["data"] == rooms[:1]
    assert api.get("/goim/online/top?type=none&limit=1").json()["data"] == []


def test_rooms_are_counted_those_too_that_are_empty(api, nodes):
    nodes.open("s1", "a", "live://1")
    answer = api.get("/goim/online/room?type=live&rooms=1&rooms=2").json()
    assert answer == {**OK, "data": {"1": 1, "2": 0}}


def test_sessions_and_their_addresses_are_counted(api, nodes):
    nodes.open("s1", "a")
    nodes.open("s2", "b")
    nodes.renew()
    answer = api.get("/goim/online/total").json()
    assert answer == {**OK, "data": {"ip_count": 1, "conn_count": 2}}


@pytest.mark.parametrize(
    "path",
    [
        "top?type=live",
        "top?limit=1",
        "top?type=live&limit=0",
        "top?type=live&limit=1001",
        "top?type=live&limit=x",
        "room?type=live",
        "room?type=live&rooms=",
        "room?rooms=1",
    ],
)
def test_a_bad_question_is_answered_by_what_is_wrong(api, path):
    check_code(api.get(f"/goim/online/{path}"), 400)


def test_a_question_names_so_many_rooms_at_most(api):
    rooms = "&rooms=".join(map(str, range(101)))
    check_code(api.get(f"/goim/online/room?type=live&rooms={rooms}"), 400, "at most 100 rooms")


@pytest.mark.parametrize("path", ["online/top?type=live&limit=1", "online/total"])
def test_without_the_registry_nothing_is_known(api, registry_down, path):
    check_code(api.get(f"/goim/{path}"), 503)


def test_clients_are_sent_to_the_emptiest_node(api, nodes):
    nodes.start("n2", 8, address="192.0.2.8")
    nodes.start("n3", 9, address="192.0.2.9")
    nodes.open("s1", "a", node="n2")
    nodes.renew("n2")
    told = api.get("/goim/nodes/weighted?platform=ios", headers={"host": "testserver:8000"}).json()
    assert told["code"] == 0
    assert told["data"]["nodes"] == ["192.0.2.9", "192.0.2.8"]
    assert told["data"]["domain"] == "testserver"
    assert (told["data"]["tcp_port"], told["data"]["ws_port"]) == (8080, 8090)
    assert told["data"]["heartbeat"] * told["data"]["heartbeat_max"] < 300
    nodes.drain("n3")  # it would refuse them
    assert api.get("/goim/nodes/weighted").json()["data"]["nodes"] == ["192.0.2.8"]


def test_node_without_an_address_of_its_own_has_the_host_of_the_request(api, nodes):
    assert api.get("/goim/nodes/weighted").json()["data"]["nodes"] == ["testserver"]


def test_instances_are_the_nodes(api, nodes):
    (node,) = api.get("/goim/nodes/instances").json()["data"]
    assert (node["hostname"], node["appid"]) == ("n1:8000", "goim.comet")
    assert node["metadata"]["conn_count"] == "0"
    assert node["latest_timestamp"] == 100_000_000_000
