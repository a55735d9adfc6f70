"""Callers are shown by the names of their API keys."""

import json

import pytest

from accounts.callers import caller_names
from accounts.models import ApiKey
from offline.models import Message
from push.accept.accept import Push, accept_push
from push.status import explain, snapshot

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller() -> str:
    row, _ = ApiKey.objects.issue("shop", ["push"])
    return f"apikey:{row.pk}"


def test_caller_is_shown_by_the_name_of_its_api_key(caller):
    number = accept_push(Push(b"1", keys=("u1",)), caller)
    shown = f"shop ({caller})"
    assert f"by {shown} " in " ".join(explain.of_message("u1", number))
    assert shown in json.dumps(snapshot.take(snapshot.RoomsCache()), default=str)


def test_callers_without_an_api_key_are_shown_as_recorded(caller):
    names = ["", "python", "IMGO_API_KEY", "apikey:999", "apikey:x", "apikey:\u0661", caller]
    shown = caller_names(names)
    assert {name: shown[name] for name in names[:-1]} == {name: name for name in names[:-1]}


def test_admin_lists_callers_by_name(admin_client, caller):
    for by in (caller, "apikey:x", "python"):
        accept_push(Push(b"1", room="a"), by)
    page = admin_client.get("/admin/offline/message/").content.decode()
    assert f"shop ({caller})" in page
    assert "apikey:x" in page
    (newest, *_) = Message.objects.order_by("-pk")
    assert (
        "python" in admin_client.get(f"/admin/offline/message/{newest.pk}/change/").content.decode()
    )
