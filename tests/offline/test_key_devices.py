"""Devices of keys with the scope `each`: a copy for each, registration, and who is forgotten."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from offline import cancellation, conservation, history, key_devices, schedule
from offline.key_messages import find_device_deliveries, read_device_pages
from offline.models import ACKNOWLEDGED, RECEIVED, SENT, KeyDevice, Message, Pending
from offline.settlement import expire_batch, record_device_receipts, record_receipts
from offline.values import Delivered, DevicePage, DeviceReceipt, NewMessage, Receipt
from push import fanout
from push.accept.transaction import store as accept

from .conftest import events

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


@pytest.fixture(autouse=True)
def _scopes(imgo):
    imgo(ACK_SCOPE={"any-*": "any", "*": "each"})


def register(key: str, *names: str) -> None:
    for name in names:
        key_devices.register(key, name)


def pending() -> list[tuple[int, str, str]]:
    return sorted(Pending.objects.values_list("message_id", "key", "device"))


def settle(message_id: int, device: str, kind: str = ACKNOWLEDGED, key: str = "a") -> list[str]:
    """The devices whose receipts have settled a row."""
    receipt = DeviceReceipt(message_id, key, kind, "s1", 0.0, device)
    return [one.device for one in record_device_receipts([receipt])]


def page(device: str, kind="pending", key: str = "a", since: int = 0) -> list[int]:
    """The ids that a device is sent."""
    asked = DevicePage(key, 0, since, (device,))
    return [one.id for one in read_device_pages([asked], 100, kind)[asked]]


def check_balance() -> None:
    assert conservation.unbalanced(0, 10**12) == []


@pytest.mark.parametrize("keys", [["a"], ["a", "b", "any-1"]])
def test_stored_message_is_pending_for_each_device(store, keys):
    register("a", "phone", "laptop")
    register("any-1", "phone")
    one = store(*keys)
    others = [(one, key, "") for key in keys[1:]]
    assert pending() == sorted([(one, "a", "laptop"), (one, "a", "phone"), *others])
    check_balance()


def test_due_push_is_pending_for_the_devices_of_that_moment(store):
    push = store("a", send_in=60.0)
    register("a", "phone")
    schedule.ScheduledPush.objects.update(due_at=Now() - timedelta(seconds=1))
    (due,) = schedule.store_due().due
    assert (due.id, pending()) == (push, [(due.message_id, "a", "phone")])
    check_balance()


def test_device_settles_only_its_own_copy(store):
    register("a", "phone", "laptop")
    one = store("a")
    assert settle(one, "phone", SENT) == []
    assert settle(one, "phone") == ["phone"]
    assert settle(one, "phone") == []
    assert pending() == [(one, "a", "laptop")]
    assert settle(one, "laptop", RECEIVED) == ["laptop"]
    assert events("kind", "device") == [
        (one, "a", "sent", "phone"),
        (one, "a", "acknowledged", "phone"),
        (one, "a", "received", "laptop"),
    ]
    check_balance()


def test_message_from_before_the_first_device_is_for_the_first_that_reads_it(store):
    one = store("a")
    register("a", "phone", "laptop")
    assert (page("phone"), page("laptop")) == ([one], [one])
    receipts = [DeviceReceipt(one, "a", ACKNOWLEDGED, "s", 0, n) for n in ("laptop", "phone")]
    assert [receipt.device for receipt in record_device_receipts(receipts)] == ["laptop"]
    assert (page("phone"), page("laptop")) == ([], [])
    check_balance()


def test_clients_without_a_name_are_one_device_of_the_key(store):
    register("a", "")
    one = store("a")
    register("a", "phone")
    two = store("a")
    assert (page(""), page("phone")) == ([one, two], [two])
    assert settle(one, "phone") == []
    assert settle(two, "") == [""]
    assert pending() == [(one, "a", ""), (two, "a", "phone")]
    check_balance()


def test_page_with_since_has_what_the_device_has_had(store):
    register("a", "phone", "laptop")
    ids = [store("a") for _ in range(3)]
    settle(ids[1], "phone")
    settle(ids[2], "laptop")
    assert page("phone", "history", since=ids[0]) == ids[1:]
    assert page("laptop", "history", since=ids[1]) == ids[2:]


def test_registration_above_the_limit_forgets_the_least_recently_seen(store, imgo):
    imgo(ACK_SCOPE={"*": "each"}, DEVICES_MAX=2)
    register("a", "phone", "laptop")
    one = store("a")
    register("a", "phone")  # seen again
    assert key_devices.register("a", "tablet") == 1
    assert {row.name for row in key_devices.devices_of("a")} == {"phone", "tablet"}
    assert events("kind", "reason", "device") == [
        (one, "a", "dropped", "device_forgotten", "laptop")
    ]
    assert pending() == [(one, "a", "phone")]  # the new device has no old messages
    check_balance()


def test_device_without_a_session_for_long_is_forgotten(store, imgo):
    imgo(ACK_SCOPE={"*": "each"}, DEVICE_TTL=60)
    register("a", "phone", "laptop")
    register("b", "phone")
    one = store("a", "b")
    KeyDevice.objects.update(seen_at=Now() - timedelta(seconds=61))
    key_devices.refresh([("a", "laptop"), ("b", "laptop")])
    assert key_devices.forget_batch() == (2, 2)
    assert pending() == [(one, "a", "laptop")]
    assert key_devices.forget_batch() == (0, 0)
    check_balance()


def test_key_whose_last_device_was_forgotten_gets_one_copy(store, imgo):
    register("a", "phone")
    KeyDevice.objects.update(seen_at=Now() - timedelta(days=91))
    key_devices.forget_batch()
    assert (store("a"), "a", "") in pending()


def test_cancel_replacement_and_expiry_end_the_copies_of_all_devices(store):
    register("a", "phone", "laptop")
    cancelled, kept = store("a"), store("a", ttl=60)
    settle(cancelled, "phone")
    assert cancellation.cancel(cancelled).keys == 1
    older, newer = (
        transaction_of(NewMessage(b"{}", 60.0, keys=("a",), collapse_key="n")) for _ in range(2)
    )
    Pending.objects.filter(message=kept).update(expires_at=Now() - timedelta(seconds=1))
    assert expire_batch() == 2
    assert pending() == [(newer, "a", "laptop"), (newer, "a", "phone")]
    assert sorted(events("kind", "device")) == [
        (cancelled, "a", "acknowledged", "phone"),
        (cancelled, "a", "dropped", "laptop"),
        (kept, "a", "expired", "laptop"),
        (kept, "a", "expired", "phone"),
        (older, "a", "dropped", "laptop"),
        (older, "a", "dropped", "phone"),
    ]
    check_balance()


def transaction_of(message: NewMessage) -> int:
    return accept([message]).ids[0]


@pytest.mark.parametrize("is_online", [True, False])
def test_offline_max_is_of_a_device(store, imgo, monkeypatch, is_online):
    imgo(ACK_SCOPE={"*": "each"}, OFFLINE_MAX=2)
    monkeypatch.setattr(fanout, "_may_be_online", lambda key: is_online)
    register("a", "phone", "laptop")
    ids = [store("a") for _ in range(4)]
    for one in ids[:3]:
        settle(one, "phone")
    Message.objects.filter(pk=ids[0]).update(created_at=Now() - timedelta(seconds=61))
    fanout.trim({"a"})
    dropped = ids[:1] if is_online else ids[:2]
    assert page("phone") == ids[3:]
    assert page("laptop") == [one for one in ids if one not in dropped]
    check_balance()


def test_record_tells_of_each_device(store):
    register("a", "phone", "laptop")
    one = store("a", "b")
    settle(one, "phone")
    first, second = history.deliveries(history.find(one), ["a", "b"])
    assert (first.state, second.state, second.devices) == ("pending", "pending", [])
    parts = [(part.device, part.state, part.how) for part in first.devices]
    assert parts == [("laptop", "pending", ""), ("phone", "acknowledged", "client")]
    assert history.totals(history.find(one)) == {
        "acknowledged": 1, "pending": 2, "expired": 0, "dropped": 0
    }  # fmt: skip
    settle(one, "laptop")
    (first,) = history.deliveries(history.find(one), ["a"])
    assert (first.state, first.how) == ("acknowledged", "client")
    assert [one for one, _ in history.latest_of("a", 5)] == [history.find(one)]


def test_key_whose_scope_was_each_is_settled_by_the_first_acknowledgement(store, imgo):
    register("a", "phone", "laptop")
    one = store("a")
    imgo(ACK_SCOPE={})
    assert record_receipts([Receipt(one, "a", ACKNOWLEDGED, "s1")]) == 2
    assert pending() == []
    check_balance()


def test_new_devices_of_many_keys_take_one_transaction(store, django_assert_num_queries):
    old = store("a")
    register("a", "phone")
    pairs = [(key, name) for key in "abc" for name in ("laptop", "tablet")]
    with django_assert_num_queries(5):  # with the savepoint of the test's transaction
        assert key_devices.register_new(pairs) == set(pairs)
    assert set(KeyDevice.objects.values_list("key", "name")) == {*pairs, ("a", "phone")}
    assert page("laptop") == [old]  # not acknowledged yet
    one = store("a", "b")
    assert pending() == sorted(
        [(old, "a", "")]
        + [(one, "a", name) for name in ("laptop", "phone", "tablet")]
        + [(one, "b", name) for name in ("laptop", "tablet")]
    )
    check_balance()


def test_new_devices_above_the_limit_are_left_to_one_by_one(imgo):
    imgo(ACK_SCOPE={"*": "each"}, DEVICES_MAX=2)
    register("a", "phone")
    pairs = {("a", "laptop"), ("a", "tablet"), ("b", "phone"), ("b", "laptop")}
    assert key_devices.register_new([*pairs, ("c", "1"), ("c", "2"), ("c", "3")]) == {
        ("b", "phone"),
        ("b", "laptop"),
    }
    assert key_devices.register_new([("a", "laptop")]) == {("a", "laptop")}
    assert key_devices.register_new([("a", "tablet")]) == set()


def test_known_device_is_not_registered_as_new():
    register("a", "phone")
    assert key_devices.register_new([("a", "phone"), ("b", "phone")]) == {("b", "phone")}


def test_delivery_of_a_device_is_that_of_its_own_copy(store):
    register("a", "phone", "laptop")
    one, two = store("a"), store("a")
    receipt = DeviceReceipt(one, "a", ACKNOWLEDGED, "s1", 60.0, "phone")
    record_device_receipts([receipt])
    asked = [(one, "a", name) for name in ("phone", "laptop", "new")]
    found = find_device_deliveries([*asked, (two, "a", "laptop"), (two, "b", "phone")])
    assert set(found) == {(one, "a", "phone"), (one, "a", "laptop"), (two, "a", "laptop")}
    had = found.pop((one, "a", "phone"))
    assert 60 <= had.age < 90
    assert had.xmin is not None
    assert set(found.values()) == {Delivered(0.0, None)}  # pending


def test_message_from_before_the_first_device_is_to_be_delivered_to_any(store):
    one = store("a")
    asked = {(one, "a", "phone"), (one, "a", "laptop")}
    assert find_device_deliveries(asked) == dict.fromkeys(asked, Delivered(0.0, None))
    register("a", "phone", "laptop")
    settle(one, "phone")
    assert set(find_device_deliveries(asked)) == {(one, "a", "phone")}


def test_expired_copy_is_not_delivered_although_it_was_sent(store):
    register("a", "phone")
    one = store("a", ttl=0)
    settle(one, "phone", SENT)
    assert set(find_device_deliveries([(one, "a", "phone")])) == {(one, "a", "phone")}
    assert expire_batch() == 1
    assert find_device_deliveries([(one, "a", "phone")]) == {}
