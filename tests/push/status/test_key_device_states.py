"""What the API, explain, the key's page and notifications make of the devices of a key."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from offline import key_devices
from offline.models import ACKNOWLEDGED, SENT
from offline.partitions import hashes_of
from offline.settlement import record_device_receipts
from offline.values import DeviceReceipt
from push import push_to_key
from push.accept.cancel import cancel_push
from push.devices import notices, queue
from push.devices.addresses import address_of
from push.devices.registration import register
from push.status import explain, key_device_states
from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE, Browser

pytestmark = pytest.mark.django_db
ENDPOINT = "https://fcm.googleapis.com/fcm/send/secret-abcdef"


@pytest.fixture(autouse=True)
def _scopes(imgo) -> None:
    imgo(ACK_SCOPE={"u*": "each"}, WEBPUSH_PRIVATE_KEY=VAPID_PRIVATE, WEBPUSH_SUBJECT=SUBJECT)


@pytest.fixture
def message_id() -> int:
    """A message that one of two devices has acknowledged."""
    for name in ("phone", "laptop"):
        key_devices.register("u1", name)
    found = push_to_key("u1", 1, notify={"title": "Hi"}, notify_after=0)
    acknowledge(found, "phone")
    return found


def acknowledge(message_id: int, device: str) -> None:
    record_device_receipts([DeviceReceipt(message_id, "u1", ACKNOWLEDGED, "n-1", 0.0, device)])


def test_api_lists_the_devices_of_a_key_and_the_state_of_each(api, message_id):
    devices = api.get("/api/v1/keys/u1").json()["devices"]
    assert {(one["device"], one["pending"]) for one in devices} == {("phone", 0), ("laptop", 1)}
    assert "devices" not in api.get("/api/v1/keys/bot").json()
    record = api.get(f"/api/v1/pushes/{message_id}").json()
    (result,) = record["results"]
    parts = [(one["device"], one["state"], one.get("session")) for one in result["devices"]]
    assert parts == [("laptop", "pending", None), ("phone", "acknowledged", "n-1")]
    assert (result["state"], record["totals"]["pending"]) == ("pending", 1)


def test_explain_tells_of_each_device(message_id):
    lines = explain.of_key("u1", 5, lambda _: [], list)
    assert any(line.startswith("  Device 'laptop': 1 pending message, ") for line in lines)
    summary = "1 of 2 devices of the key have acknowledged it; it is pending for device 'laptop'."
    assert any(line.endswith(summary) for line in lines)
    found = explain.of_message("u1", message_id, lambda _: [], list)
    assert any(line.startswith("For device 'phone': The client of session n-1") for line in found)
    assert summary in found


def test_explain_counts_only_devices_that_a_message_was_stored_for(message_id):
    cancel_push(message_id)
    record_device_receipts([DeviceReceipt(message_id, "u1", SENT, "n-2", 0.0, "new")])
    summary = "1 of 2 devices of the key have acknowledged it; dropped (cancelled) for 1."
    assert explain.of_key("u1", 5, lambda _: [], list)[-1].endswith(summary)
    found = explain.of_message("u1", message_id, lambda _: [], list)
    assert f"For device 'new': {key_device_states.NOT_STORED}" in found
    assert summary in found


def test_page_of_a_key_lists_its_devices(message_id):
    browser = Client()
    browser.force_login(User.objects.create_superuser("root"))
    page = browser.get("/dashboard/key?name=u1").content.decode()
    assert '<th scope="row" data-label="Device">laptop</th>' in page
    assert '<td class="number" data-label="Pending">1</td>' in page
    assert (
        "Devices with messages of their own"
        not in browser.get("/dashboard/key?name=bot").content.decode()
    )


@pytest.mark.parametrize("is_claimed_before", [True, False])
def test_notification_stops_when_any_device_has_acknowledged(is_claimed_before):
    register("u1", address_of("webpush", Browser(ENDPOINT).subscription, None))
    for name in ("phone", "laptop"):
        key_devices.register("u1", name)
    found = push_to_key("u1", 1, notify={"title": "Hi"}, notify_after=0)
    if not is_claimed_before:
        acknowledge(found, "phone")
    notices.expand()
    assert len(queue.claim("webpush", 10)) == is_claimed_before


def test_push_to_a_key_with_the_scope_any_runs_the_statements_of_the_default(imgo):
    def statements(key: str) -> list[str]:
        with CaptureQueriesContext(connection) as found:
            push_to_key(key, 1)
        (number,) = hashes_of([key])
        return [query["sql"].replace(key, "").replace(str(number), "") for query in found]

    key_devices.register("bot", "phone")
    push_to_key("bot", 1)  # the first statement of a connection asks for more
    with_scopes = statements("bot")
    imgo(ACK_SCOPE={})
    assert statements("one") == with_scopes
