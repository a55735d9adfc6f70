"""Checks of the keys whose coming and going are events."""

import pytest

from push.checks.online import check_event_keys
from tests.push.webhooks.conftest import entry


@pytest.mark.parametrize("pattern", ["", "a\n*", "x" * 256])
def test_pattern_that_matches_no_key_is_an_error(imgo, pattern):
    imgo(EVENT_KEYS=["user-*", pattern])
    (message,) = check_event_keys()
    assert message.id == "imgo.E053"


def test_room_events_are_checked_as_those_of_keys(imgo):
    imgo(EVENT_ROOMS=["a\n*"], EVENT_KEYS=["*"])
    assert [message.id for message in check_event_keys()] == ["imgo.E053"]
    imgo(WEBHOOKS=[entry(events=["room.vacated"])], EVENT_KEYS=["*"], EVENT_ROOMS=[])
    (message,) = check_event_keys()
    assert (message.id, "EVENT_ROOMS" in message.msg) == ("imgo.W045", True)


def test_webhook_for_events_that_never_come_is_a_warning(imgo):
    imgo(WEBHOOKS=[entry(), entry(events=["key.offline", "message.expired"])])
    (message,) = check_event_keys()
    assert (message.id, "key.offline" in message.msg) == ("imgo.W045", True)
    imgo(EVENT_KEYS=["*"])
    assert check_event_keys() == []
