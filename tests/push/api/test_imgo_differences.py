"""The table of docs/howto/move.md: where the answers differ from imgo's, and where they do not."""

import pytest

from imgo_site.conf import conf
from offline.models import Message
from push.accept.accept import push_to_key

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"
MISTAKES = [
    ("/1/push?uid=x", b"1"),
    ("/1/push?uid=-1", b"1"),
    ("/1/pushs", b'{"u": [1, -1], "m": 1}'),
    ("/1/pushs", b'{"u": null, "m": 1}'),
    ("/1/pushs", b'{"u": [1]}'),
    ("/1/push?uid=1", b""),
    ("/1/push/room?rid=x", b"1"),
    ("/1/server/del", b""),
]


@pytest.mark.parametrize(("path", "body"), MISTAKES)
def test_imgo_mistake_of_a_caller_is_65534_with_400(api, path, body):
    answer = api.generic("POST", path, body, content_type=FORM)
    assert (answer.status_code, answer.json()) == (400, {"ret": 65534})
    assert not Message.objects.exists()


def test_imgo_count_of_an_unknown_type_is_65534(api):
    answer = api.get("/1/count?type=x")
    assert (answer.status_code, answer.json()) == (400, {"ret": 65534})


def test_imgo_unknown_path_is_404_with_65534(api):
    answer = api.get("/1/nothing")
    assert (answer.status_code, answer.json()) == (404, {"ret": 65534})


def test_imgo_msg_get_with_nothing_pending_has_an_empty_list(api):
    api.generic("POST", "/1/admin/token/new", b"uid=1&token=t&expire=60", content_type=FORM)
    answer = api.get("/1/msg/get?uid=1&token=t&mid=0")
    assert answer.json() == {"ret": 0, "data": {"msgs": []}}
    first, second = push_to_key("1", 1), push_to_key("1", 2)
    assert 0 < first < second
    found = api.get(f"/1/msg/get?uid=1&token=t&mid={first}").json()["data"]["msgs"]
    assert [message["mid"] for message in found] == [second]


def test_imgo_messages_that_wait_for_a_user_are_as_many_as_documented():
    assert conf.OFFLINE_MAX == 1_000
