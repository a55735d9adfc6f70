"""Content of notifications, and which pushes may have one."""

from typing import Any

import pytest

from imgo_site.errors import BadRequest, TooLarge
from push.accept.accept import Push
from push.devices.content import CONTENT_MAX, DEPTH_MAX, Notify, notify_of


@pytest.fixture(autouse=True)
def _with_a_provider(imgo) -> None:
    imgo(WEBPUSH_PRIVATE_KEY="k")


def test_content_leaves_out_what_is_empty() -> None:
    assert Notify("Hi ✓", url="app://orders/7").text == '{"title":"Hi ✓","url":"app://orders/7"}'


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({}, "title is empty"),
        ({"title": 7}, "title must be a text"),
        ({"title": "a\nb"}, "title must not contain control characters"),
        ({"title": "a", "url": "javascript:alert(1)"}, "url must be a path"),
        ({"title": "a", "url": "//evil.test"}, "url must be a path"),
        ({"title": "a", "icon": "data:image/png;base64,x"}, "icon must be a path"),
        ({"title": "a", "data": [1]}, "data must be a JSON object"),
        ({"title": "a", "data": {"a": float("nan")}}, "data cannot be written as JSON"),
        ({"title": "a", "body": "\ud800"}, "half of a surrogate pair"),
        ({"title": "a", "body": "\0"}, "character NUL"),
        ({"title": "a", "sound": "x"}, "'sound', which is no member; there are: title"),
        ("Hi", "must be an object with a title"),
    ],
)
def test_wrong_content_is_refused(members, part) -> None:
    with pytest.raises(BadRequest, match=part):
        notify_of(members)


def nested(levels: int) -> dict[str, Any]:
    """An object with so many levels, itself included."""
    found: Any = 1
    for _ in range(levels - 1):
        found = [found]
    return {"a": found}


def test_data_has_a_limit_in_levels() -> None:
    assert '"data":{"a":[[' in Notify("a", data=nested(DEPTH_MAX)).text
    endless: dict[str, Any] = {}
    endless |= {"a": endless, "b": [endless, endless]}
    for data in (nested(DEPTH_MAX + 1), nested(700), nested(5_000), endless):
        with pytest.raises(BadRequest, match="more than 100 levels"):
            Notify("a", data=data)


def test_content_has_a_limit_in_bytes() -> None:
    room = CONTENT_MAX - len('{"title":"a","body":""}')
    assert len(Notify("a", "é" * (room // 2)).text.encode()) in (CONTENT_MAX, CONTENT_MAX - 1)
    with pytest.raises(TooLarge, match=f"at most {CONTENT_MAX} bytes"):
        Notify("a", "é" * (room // 2 + 1))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"room": "r", "notify": Notify("a")}, "needs a push to keys that is stored"),
        ({"keys": ("u1",), "store": False, "notify": Notify("a")}, "needs a push to keys"),
        ({"keys": ("u1",), "notify_after": 5}, "notify_after needs 'notify'"),
        ({"keys": ("u1",), "notify": Notify("a"), "notify_after": -1}, "must be from 0 to"),
        ({"keys": ("u1",), "notify": Notify("a"), "notify_after": "5"}, "a number of seconds"),
    ],
)
def test_push_that_cannot_notify_is_refused(options, part) -> None:
    with pytest.raises(BadRequest, match=part):
        Push(b"1", **options)


def test_push_that_notifies_needs_a_provider(imgo) -> None:
    imgo(WEBPUSH_PRIVATE_KEY="")
    with pytest.raises(BadRequest, match="set WEBPUSH_PRIVATE_KEY, APNS_KEY or FCM_CREDENTIALS"):
        Push(b"1", keys=("u1",), notify=Notify("a"))
