"""What explain says of a message's notification, while it waits and after it was sent."""

import pytest
from django.db.models.functions import Now

from push import push_to_key
from push.devices import notices, queue
from push.devices.addresses import address_of
from push.devices.jobs import Outcome, Result
from push.devices.registration import register
from push.devices.tables import Notice, Notification
from push.status import explain
from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE, Browser

pytestmark = pytest.mark.django_db
ENDPOINT = "https://fcm.googleapis.com/fcm/send/secret-abcdef"


@pytest.fixture(autouse=True)
def _provider(imgo) -> None:
    imgo(WEBPUSH_PRIVATE_KEY=VAPID_PRIVATE, WEBPUSH_SUBJECT=SUBJECT)


def sentences(message_id: int) -> str:
    found = explain.of_message("u1", message_id, lambda _: [], list)
    return " ".join(one for one in found if "otif" in one or "device" in one)


def device() -> int:
    return register("u1", address_of("webpush", Browser(ENDPOINT).subscription, None)).pk


def notify() -> int:
    return push_to_key("u1", 1, notify={"title": "Hi"}, notify_after=60)


def test_notification_is_explained_at_each_step():
    number, message_id = device(), notify()
    assert sentences(message_id).startswith("Its devices are notified at 20")
    Notice.objects.update(due_at=Now())
    notices.expand()
    assert f"Its notification to device {number} (webpush) is sent at" in sentences(message_id)
    (job,) = queue.claim("webpush", 1)
    queue.settle([(job, Result(Outcome.SENT, provider_id="m/1"))])
    found = sentences(message_id)
    assert f"was taken by the provider of device {number} at" in found
    assert found.endswith("as m/1. Whether the device has shown it is not known.")
    assert ENDPOINT not in found


def test_key_without_a_device_is_explained():
    assert sentences(notify()).startswith("The key has no device of a provider")


@pytest.mark.parametrize(
    ("result", "part"),
    [
        (Result(Outcome.GONE, "status_410"), "failed at"),
        (Result(Outcome.REJECTED, "BadDeviceToken"), "its provider answered BadDeviceToken"),
        (Result(Outcome.REJECTED, "private_address"), "its host has a private address"),
    ],
)
def test_failed_notification_is_explained(result, part):
    number, message_id = device(), notify()
    Notice.objects.update(due_at=Now())
    notices.expand()
    (job,) = queue.claim("webpush", 1)
    queue.settle([(job, result)])
    assert not Notification.objects.exists()
    found = sentences(message_id)
    assert f"Its notification to device {number} failed at" in found
    assert part in found
