"""manage.py cancel: what it prints, and its exit status."""

import pytest

from push import push_to_key, push_to_room

pytestmark = pytest.mark.django_db


def test_scheduled_push_is_cancelled(run, data):
    push_id = push_to_key("u1", 1, send_at=60)
    assert run("cancel", str(push_id)) == f"Push {push_id}: cancelled for 1 key, too late for 0.\n"
    found = {"id": str(push_id), "state": "cancelled", "cancelled": 1, "too_late": 0}
    assert data("cancel", str(push_id)) == found


def test_push_to_a_room_is_cancelled(run):
    push_id = push_to_room("r", 1, send_at=60)
    assert run("cancel", str(push_id)) == f"Push {push_id} is cancelled.\n"
