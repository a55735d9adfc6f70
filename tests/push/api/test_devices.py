"""Devices of a key over the API: registration, lists without secrets, deletion, and pushes."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from push.devices.tables import Device, Notice
from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE, Browser

pytestmark = pytest.mark.django_db
PATH = "/api/v1/keys/team/u1/devices"
ENDPOINT = "https://fcm.googleapis.com/fcm/send/secret-abcdef"
TOKEN = "fJ3x:APA91bKx81bQ_9.1"
PUSH = {"to": {"key": "u1"}, "body": 1}


@pytest.fixture(autouse=True)
def _providers(imgo) -> None:
    imgo(WEBPUSH_PRIVATE_KEY=VAPID_PRIVATE, WEBPUSH_SUBJECT=SUBJECT, FCM_CREDENTIALS="{}")


@pytest.fixture
def api(caller):
    return caller("devices", "push")


def post(api, path=PATH, **body):
    return api.post(path, body, format="json")


def test_registered_device_is_listed_without_its_address(api) -> None:
    browser = Browser(ENDPOINT)
    made = post(api, provider="webpush", subscription=browser.subscription, name="laptop")
    assert made.status_code == 201
    assert made.json()["address"] == "https://fcm.googleapis.com/…abcdef"
    assert Device.objects.get().key == "team/u1"
    listed = api.get(PATH)
    assert listed.json() == {"count": 1, "results": [made.json()]}
    assert ENDPOINT not in listed.content.decode()


def test_devices_are_deleted_one_by_one_and_all(api) -> None:
    first, *_ = (post(api, provider="fcm", token=f"{n}{TOKEN}").json()["id"] for n in range(3))
    other = post(api, path="/api/v1/keys/u2/devices", provider="fcm", token=TOKEN).json()["id"]
    assert api.delete(f"{PATH}?device={other}").json() == {"deleted": 0}
    assert api.delete(f"{PATH}?device={first}").json() == {"deleted": 1}
    assert api.delete(PATH).json() == {"deleted": 2}
    assert Device.objects.get().key == "u2"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"provider": "fcm"}, "'token' is not a device token"),
        ({"provider": "sms", "token": TOKEN}, "no provider 'sms'"),
        ({"provider": "apns", "token": "ab" * 32}, "not configured"),
        ({"provider": "fcm", "token": TOKEN, "name": "a\nb"}, "without control characters"),
        ({"provider": "fcm", "token": TOKEN, "nmae": "a"}, "unknown field `nmae`"),
        ({"provider": "webpush", "subscription": {"endpoint": "x"}}, "missing required field"),
    ],
)
def test_wrong_registration_is_refused(api, body, part) -> None:
    answer = post(api, **body)
    assert answer.status_code == 400
    assert part in answer.json()["detail"]
    assert TOKEN not in answer.content.decode()


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"notify": {"title": "Hi", "data": {"a": [1]}}}, 202),
        ({"notify": {"title": "Hi"}, "notify_after": 0.5}, 202),
        ({"notify": {"title": ""}}, 400),
        ({"notify": {"body": "Hi"}}, 400),
        ({"notify": {"title": "Hi", "sound": "x"}}, 400),
        ({"notify_after": 5}, 400),
        ({"notify": {"title": "Hi"}, "notify_after": -1}, 400),
        ({"notify": {"title": "x" * 3_500}}, 413),
        ({"notify": {"title": "x", "data": {"a": json.loads("[" * 700 + "]" * 700)}}}, 400),
    ],
)
def test_push_with_notify_is_accepted_or_refused(api, queued, members, status) -> None:
    answer = api.post("/api/v1/pushes", {**PUSH, **members}, format="json")
    assert answer.status_code == status, answer.content
    assert Notice.objects.count() == (status == 202)


@pytest.mark.django_db(transaction=True)
def test_notice_is_committed_with_its_push(api, queued) -> None:
    """Here the push has a transaction of its own; a dedupe id that was used adds no notice."""
    push = {**PUSH, "dedupe_id": "d", "notify": {"title": "Hi ✓"}, "notify_after": 60}
    ids = {api.post("/api/v1/pushes", push, format="json").json()["id"] for _ in range(2)}
    (notice,) = Notice.objects.all()
    assert {str(notice.pk)} == ids
    assert json.loads(notice.content) == {"title": "Hi ✓"}
    with CaptureQueriesContext(connection) as found:
        api.post("/api/v1/pushes", PUSH, format="json")
    assert "push_notice" not in str(found.captured_queries)
