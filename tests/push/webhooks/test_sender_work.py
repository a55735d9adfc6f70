"""The sender's part on the database thread: lost leases, parked events, limits."""

from collections.abc import Callable, Collection
from typing import Any

import pytest
from django.db.models.functions import Now

from offline.event_feed import newest_id
from push.metrics import definitions as metrics
from push.webhooks import outbox
from push.webhooks import sender as module
from push.webhooks.outbox import REMOVED, Result
from push.webhooks.sender import _Work
from push.webhooks.tables import LEASE, LeaseLost, WebhookBatch, WebhookCursor, WebhookEvent

from .conftest import OTHER_URL, OWNER, URL, entry, settle

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def begin(webhooks) -> Callable[..., _Work]:
    """Makes the work of a sender that has the lease, for these endpoints."""

    def make(*entries: dict[str, Any]) -> _Work:
        webhooks(*entries)
        work = _Work(OWNER)
        assert work.step([], []) == []
        return work

    return make


def step(
    work: _Work, results: Collection[Result] = (), in_flight: Collection[WebhookBatch] = ()
) -> list[WebhookBatch]:
    """One step, to which all events are visible: nothing else runs. What must be sent."""
    work._upto = newest_id()
    found = work.step(list(results), [batch.pk for batch in in_flight])
    assert found is not None
    assert all(endpoint.url == batch.endpoint for endpoint, batch in found)
    return [batch for _, batch in found]


def pass_lease_on() -> None:
    """Another node takes the lease; this one has not noticed."""
    assert WebhookCursor.objects.filter(owner=OWNER).update(owner="another") == 1


def deliveries(outcome: str) -> float:
    return metrics.WEBHOOK_DELIVERIES.labels(outcome)._value.get()


def test_result_is_not_stored_after_the_lease_was_lost(begin):
    work = begin(entry())
    settle("u", 1)
    (batch,) = step(work)
    pass_lease_on()
    with pytest.raises(LeaseLost):
        work.step([Result(batch)], [])
    assert WebhookBatch.objects.get() == batch
    assert work.step([Result(batch)], []) is None
    assert WebhookBatch.objects.get() == batch


def test_events_are_not_collected_after_the_lease_was_lost(begin):
    work = begin(entry())
    settle("u", 1)
    pass_lease_on()
    with pytest.raises(LeaseLost):
        step(work)
    assert not WebhookEvent.objects.exists()
    assert work.step([], []) is None


def test_batches_are_not_composed_after_the_lease_was_lost(begin):
    work = begin(entry())
    event = {"type": "message.expired", "key": "u", "data": "{}", "at": Now()}
    WebhookEvent.objects.create(endpoint=URL, **event)
    pass_lease_on()
    with pytest.raises(LeaseLost):
        work.step([], [])
    assert not WebhookBatch.objects.exists()
    assert work.step([], []) is None


def test_lease_that_another_node_has_is_noticed_at_the_renewal(begin, monkeypatch):
    work = begin(entry())
    pass_lease_on()
    assert work.step([], []) == []  # there is nothing to write
    monkeypatch.setattr(module, "RENEW", 0.0)
    with pytest.raises(LeaseLost):
        work.step([], [])
    WebhookCursor.objects.release("another")
    assert work.step([], []) == []
    assert WebhookCursor.objects.get().owner == OWNER


def test_end_without_the_lease_stores_nothing_and_ends_no_lease(begin):
    work = begin(entry())
    settle("u", 1)
    (batch,) = step(work)
    pass_lease_on()
    work.finish([Result(batch)])
    assert WebhookBatch.objects.get() == batch
    assert WebhookCursor.objects.get().owner == "another"


def test_end_with_the_lease_stores_the_results_and_ends_it(begin):
    work = begin(entry())
    settle("u", 1)
    work.finish([Result(batch) for batch in step(work)])
    assert not WebhookBatch.objects.exists()
    assert WebhookCursor.objects.get().owner == ""


def test_batch_that_is_parked_is_logged_and_not_sent_again(begin, caplog):
    work = begin(entry())
    settle("u", 1)
    settle("u", 2)
    (batch,) = step(work)
    before = deliveries("parked")
    assert step(work, [Result(batch, "410 Gone", is_final=True)]) == []
    assert WebhookBatch.objects.parked().get().error == "410 Gone"
    assert deliveries("parked") - before == 1
    assert caplog.messages[-1] == (f"webhook {batch.pk} to {URL} with 2 events is parked: 410 Gone")


def test_batch_that_failed_once_is_neither_parked_nor_logged(begin, caplog):
    work = begin(entry())
    settle("u", 1)
    (batch,) = step(work)
    caplog.clear()
    assert step(work, [Result(batch, "500 Because")]) == []  # until its pause is over
    assert [row.attempts for row in WebhookBatch.objects.open()] == [1]
    assert caplog.messages == []


def test_events_of_a_removed_endpoint_are_parked_step_by_step(begin, imgo, monkeypatch, caplog):
    monkeypatch.setattr(outbox, "PARK_MAX", 1)
    monkeypatch.setattr(outbox, "BATCH_MAX", 1)
    both = begin(entry(), entry(OTHER_URL))
    for number in range(1, 6):
        settle("u", number)
    assert [batch.endpoint for batch in step(both)] == [URL, OTHER_URL]
    imgo(WEBHOOKS=[entry()])
    work, parked = _Work(OWNER), WebhookBatch.objects.parked()
    for count in (2, 3, 4, 5, 5):  # the batch that was composed, and one event in each step
        assert [batch.endpoint for batch in step(work)] == [URL]
        assert parked.count() == count
    assert set(parked.values_list("endpoint", "error")) == {(OTHER_URL, REMOVED)}
    assert not WebhookEvent.objects.filter(endpoint=OTHER_URL).exists()
    text = "%d events for endpoints that WEBHOOKS does not have are parked"
    lines = [line for line in caplog.messages if "WEBHOOKS does not have" in line]
    assert lines == [text % count for count in (2, 1, 1, 1)]


def test_endpoint_has_a_limited_number_of_batches_in_flight(begin, monkeypatch):
    monkeypatch.setattr(outbox, "BATCH_MAX", 1)
    work = begin(entry(), entry(OTHER_URL))
    for number in range(1, 7):
        settle(f"k{number}", number)
    first = step(work)
    mine = [batch for batch in first if batch.endpoint == URL]
    others = [batch for batch in first if batch.endpoint == OTHER_URL]
    assert (len(mine), len(others)) == (4, 4)
    assert step(work, in_flight=first) == []
    assert [batch.endpoint for batch in step(work, in_flight=mine)] == [OTHER_URL] * 4
    done, *flying = mine
    (following,) = step(work, [Result(done)], [*flying, *others])
    assert (following.endpoint, following.keys) == (URL, ["k5"])


def test_lease_is_renewed_by_what_is_written(begin):
    work = begin(entry())
    settle("u", 1)
    (batch,) = step(work)
    WebhookCursor.objects.update(until=Now())
    step(work, [Result(batch)])
    row = WebhookCursor.objects.annotate(now=Now()).get()
    assert (row.until - row.now).total_seconds() > LEASE / 2
