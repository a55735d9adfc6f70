"""manage.py partitions: shows the number, changes it, and says what a change waits for."""

import pytest
from django.core.management import CommandError

from offline import repartitioning
from offline.models import Outbox
from offline.partitions import current
from push.accept.accept import push_to_key
from push.management.commands import partitions

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def woken(monkeypatch) -> list[int]:
    """The partitions whose workers the command wakes."""
    woken: list[int] = []
    monkeypatch.setattr(partitions, "wake", woken.extend)
    return woken


def test_the_number_is_shown_and_changed(run, data, imgo, woken):
    imgo(PARTITIONS=4)
    assert run("partitions") == "Messages are spread over 4 partitions.\n"
    assert run("partitions", "8") == "Messages are spread over 8 partitions.\n"
    assert woken == list(range(8))
    shown = data("partitions")
    assert (shown["partitions"], shown["open"]) == (8, True)
    assert run("partitions", "8") == "Messages are spread over 8 partitions.\n"


@pytest.mark.parametrize("number", ["0", "-1", "1001", "x", "4.5"])
def test_a_wrong_number_is_refused_with_what_is_right(run, number):
    with pytest.raises(CommandError, match=r"1000|invalid int"):
        run("partitions", number)
    assert current().generation == 0


def test_messages_that_were_accepted_before_are_waited_for(run, imgo, monkeypatch, capsys):
    imgo(PARTITIONS=4)
    monkeypatch.setattr("push.accept.accept.wake", lambda due: None)
    push_to_key("u1", 1)
    monkeypatch.setattr(partitions, "REPORT_EVERY", -1.0)
    monkeypatch.setattr(partitions.time, "sleep", lambda _: Outbox.objects.all().delete())
    run("partitions", "2")
    assert "Waiting for messages that were accepted before" in capsys.readouterr().err
    assert current().is_open


def test_an_interrupted_change_is_shown_and_not_begun_twice(run, imgo):
    imgo(PARTITIONS=4)
    repartitioning.change(2)
    assert "accepted before are fanned out first" in run("partitions")
    with pytest.raises(CommandError, match="changed already"):
        run("partitions", "8")
