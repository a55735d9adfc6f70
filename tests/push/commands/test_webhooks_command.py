"""manage.py webhooks: what waits, what is parked, and a try; and what `explain` tells of both."""

import pytest
from django.core.management import CommandError
from django.db.models.functions import Now

from offline.event_feed import newest_id
from push.accept.accept import push_to_key
from push.metrics import definitions as metrics
from push.status import explain, snapshot, vitals
from push.webhooks import outbox
from push.webhooks.endpoints import endpoints
from push.webhooks.outbox import Result
from push.webhooks.tables import WebhookBatch
from tests.push.webhooks.conftest import OWNER, URL, entry, settle, webhooks

__all__ = ["webhooks"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def parked(webhooks) -> WebhookBatch:
    """A batch with an acknowledged message of the key u."""
    webhooks(entry())
    settle("u", push_to_key("u", 1))
    outbox.collect(OWNER, newest_id())
    outbox.compose(endpoints()[0], 1)
    batch = WebhookBatch.objects.get()
    outbox.settle(Result(batch, "it answered with status 410", is_final=True))
    settle("u", push_to_key("u", 2))
    outbox.collect(OWNER, newest_id())
    return batch


def test_list_shows_backlog_and_last_error(run, data, parked):
    (row,) = data("webhooks")
    assert row.pop("oldest") >= 0
    assert row == {
        "endpoint": URL, "is_known": True, "waiting": 1, "parked": 1,
        "error": "it answered with status 410",
    }  # fmt: skip
    assert "it answered with status 410" in run("webhooks")


def test_removed_endpoint_is_listed_and_cannot_be_retried(run, data, parked, webhooks):
    webhooks(entry("http://127.0.0.1:9/new"))
    assert [row["is_known"] for row in data("webhooks")] == [True, False]
    assert "(removed)" in run("webhooks")
    assert data("webhooks", "retry") == {"retried": 0}
    with pytest.raises(CommandError, match="does not have the endpoint"):
        run("webhooks", "retry", str(parked.pk))


def test_retry_unparks_one_batch_or_all(run, data, parked):
    with pytest.raises(CommandError, match="No parked batch"):
        run("webhooks", "retry", str(parked.pk + 1))
    assert "1 batch(es)" in run("webhooks", "retry", str(parked.pk))
    (batch,) = outbox.due(endpoints()[0], [], 4)
    assert (batch.attempts, batch.parked_at, batch.body) == (0, None, parked.body)
    WebhookBatch.objects.update(parked_at=Now())
    assert data("webhooks", "retry") == {"retried": 1}
    with pytest.raises(CommandError, match="Only 'retry'"):
        run("webhooks", "ping", "7")


def test_ping_of_an_absent_endpoint_fails(run, imgo):
    imgo(WEBHOOKS=[entry()])
    with pytest.raises(CommandError, match="Not accepted"):
        run("webhooks", "ping")
    imgo(WEBHOOKS=[])
    assert "no endpoint" in run("webhooks", "ping")


@pytest.mark.parametrize("bad", [{"url": "x"}, {**entry(), "secret": "short"}])
@pytest.mark.parametrize("action", [[], ["ping"]])
def test_wrong_endpoint_is_an_error_of_one_line(run, imgo, bad, action):
    imgo(WEBHOOKS=[bad])
    with pytest.raises(CommandError, match="Entry 1 of WEBHOOKS"):
        run("webhooks", *action)


def test_metrics_dashboard_and_explain_show_it(parked):
    vitals._read_gauges()
    assert metrics.WEBHOOK_BACKLOG._value.get() == 1
    assert metrics.WEBHOOK_PARKED._value.get() == 1
    assert [row["parked"] for row in snapshot.of_database()["webhooks"]] == [1]
    first, second = (event["id"] for event in explain.as_data("u", None, 2)["messages"][::-1])
    assert any(f"retry {parked.pk}" in line for line in explain.of_message("u", int(first)))
    waiting = explain.of_message("u", int(second))
    assert f"The event message.acknowledged waits for the webhook {URL}." in waiting
