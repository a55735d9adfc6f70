"""manage.py prune and conserve: what a node does by itself, now."""

import pytest
from django.core.management import CommandError
from django.db.models.functions import Now

from offline.models import Event, Message, Pending
from push.accept.accept import push_to_key
from push.models import Dedupe

pytestmark = pytest.mark.django_db


def test_prune_settles_what_has_expired_and_forgets_what_is_over(run, data):
    expired, over, kept = (push_to_key("u1", n, dedupe_id=f"d{n}") for n in range(3))
    Pending.objects.filter(message=expired).update(expires_at=Now())
    Message.objects.filter(pk=over).update(keep_until=Now())
    Dedupe.objects.filter(dedupe_id="d1").update(created_at="2020-01-01T00:00Z")
    assert data("prune") == {"expired": 1, "messages": 1, "dedupe_ids": 1}
    assert set(Message.objects.values_list("pk", flat=True)) == {expired, kept}
    assert list(Pending.objects.values_list("message_id", flat=True)) == [kept]
    assert [(e.message_id, e.kind) for e in Event.objects.all()] == [(expired, "expired")]
    assert run("prune") == (
        "0 deliveries have expired; 0 messages with their records and 0 dedupe ids are deleted.\n"
    )


def test_conserve_says_that_nothing_is_missing(run, data):
    push_to_key("u1", 1)
    assert "Everything is accounted for." in run("conserve")
    assert (data("conserve")["accepted"], data("conserve")["unbalanced"]) == (1, [])


def test_conserve_fails_when_something_is_missing(run, capsys):
    lost = push_to_key("u1", 1)
    Pending.objects.all().delete()
    with pytest.raises(SystemExit) as end:
        run("conserve")
    assert end.value.code == 1
    with pytest.raises(CommandError, match="--latest"):
        run("conserve", "--latest", "-1")
    assert lost
