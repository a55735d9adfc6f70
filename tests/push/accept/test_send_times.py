"""Times at which pushes are due: what is accepted, and what is refused with which text."""

from datetime import UTC, datetime, timedelta
from datetime import timezone as tz

import pytest
from django.utils import timezone

from imgo_site.errors import BadRequest
from offline.models import Message, ScheduledPush
from push import push_to_key, push_to_room
from push.accept.accept import Push, accept_pushes
from push.accept.send_times import read_send_at

DAY = 86_400


@pytest.mark.parametrize(
    "text",
    ["2026-12-24T18:00:00Z", "2026-12-24T19:00:00+01:00", "2026-12-24 18:00:00.000+00:00"],
)
def test_text_with_a_zone_is_read_as_that_time(text):
    assert read_send_at(text) == datetime(2026, 12, 24, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("send_at", "part"),
    [
        (datetime(2026, 12, 24), "2026-12-24T00:00:00 has no zone"),
        (timezone.now() + timedelta(days=31), r"at most 2592000 seconds \(MAX_DELAY\) from now"),
        (datetime.max.replace(tzinfo=UTC), "MAX_DELAY"),
        (-1, "from 0 to 2592000"),
        (30 * DAY + 1, r"from 0 to 2592000 seconds \(MAX_DELAY\), not 2592001\."),
        (float("nan"), "a number of seconds"),
        (float("inf"), "from 0 to 2592000"),
        (True, "not True"),
        ("2026-12-24T18:00:00Z", "a time with a zone"),  # of Python's calls: a datetime
    ],
)
def test_invalid_time_is_refused(send_at, part):
    with pytest.raises(BadRequest, match=part):
        Push(b"1", keys=("a",), send_at=send_at)


@pytest.mark.parametrize("text", ["tomorrow", "", "2026-13-01T00:00:00Z", "9" * 999])
def test_text_that_is_no_time_is_refused(text):
    with pytest.raises(BadRequest, match="send_at must be a time with a zone"):
        read_send_at(text)


@pytest.mark.django_db
@pytest.mark.any_database
def test_python_calls_schedule_pushes_and_send_past_ones_now():
    at = timezone.now() + timedelta(hours=1)
    one = push_to_key("a", 1, send_at=at)
    two = push_to_room("r", 2, send_at=60)
    now = push_to_key("a", 3, send_at=timezone.now() - timedelta(days=400))
    due = dict(ScheduledPush.objects.values_list("pk", "due_at"))
    assert due.keys() == {one, two}
    assert due[one] == at
    assert Message.objects.get().pk == now


@pytest.mark.django_db
@pytest.mark.any_database
def test_dedupe_id_of_a_scheduled_push_is_answered_with_its_id():
    push = Push(b"1", keys=("a",), send_at=60.0, dedupe_id="d")
    first, other = accept_pushes([push, Push(b"2", keys=("a",))])
    assert accept_pushes([push]) == [first]
    assert ScheduledPush.objects.get().pk == first != other


@pytest.mark.django_db
@pytest.mark.any_database
def test_zones_that_postgres_refuses_are_accepted():
    soon = (timezone.now() + timedelta(hours=1)).replace(microsecond=0)
    far = soon.astimezone(tz(timedelta(hours=23, minutes=59, seconds=59)))
    before_all = datetime.min.replace(tzinfo=tz(timedelta(hours=23)))
    pushes = [Push(b"1", keys=("a",), send_at=at) for at in (far, before_all)]
    one, two = accept_pushes(pushes)
    assert dict(ScheduledPush.objects.values_list("pk", "due_at")) == {one: soon}
    assert Message.objects.get().pk == two
