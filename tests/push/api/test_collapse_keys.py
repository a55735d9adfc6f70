"""Pushes with `collapse_key` and `version` over the API, and their records."""

import pytest
from prometheus_client import REGISTRY

from imgo_site.errors import BadRequest
from push.accept.accept import Push
from push.status import explain

from .test_v1 import PUSHES, check_problem, send

pytestmark = pytest.mark.django_db

PUSH = {"to": {"key": "u1"}, "body": 1, "collapse_key": "score"}


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("imgo_drops_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({}, 202),
        ({"version": 0, "to": {"room": "r"}}, 202),
        ({"version": 2**63 - 1, "collapse_key": "x" * 64}, 202),
        ({"collapse_key": "x" * 65}, 400),
        ({"collapse_key": ""}, 400),
        ({"collapse_key": "a\nb"}, 400),
        ({"collapse_key": None, "version": 1}, 400),
        ({"version": -1}, 400),
        ({"version": 1.5}, 400),
        ({"version": 2**63}, 400),
        ({"to": {"all": True}}, 400),
    ],
)
def test_members_are_accepted_or_refused(api, queued, members, code):
    answer = send(api, {**PUSH, **members})
    assert answer.status_code == code, answer.content
    if code == 400:
        check_problem(answer, 400, "bad_request")


@pytest.mark.parametrize("to", [{"key": "u1"}, {"room": "r"}])
def test_records_name_what_was_replaced_and_what_is_stale(
    api, queued, to, django_capture_on_commit_callbacks
):
    before = dropped("replaced"), dropped("stale")
    pushes = [{**PUSH, "to": to, "version": number} for number in (1, 3, 2)]
    with django_capture_on_commit_callbacks(execute=True):
        first, last, stale = [one["id"] for one in send(api, pushes).json()]
    assert (dropped("replaced"), dropped("stale")) == (before[0] + 1, before[1] + 1)
    for push_id, reason in ((first, "replaced"), (last, None), (stale, "stale")):
        record = api.get(f"{PUSHES}/{push_id}").json()
        assert record["collapse_key"] == "score"
        found = record["results"][0].get("reason") if "key" in to else record.get("dropped")
        assert found == reason
    words = [explain.of_message("u1", int(i), lambda _: [], list) for i in (first, stale)]
    assert any("a newer push with the collapse key 'score'" in one for one in words[0])
    assert any("its version, 2, is lower" in one for one in words[1])


@pytest.mark.parametrize("version", ["7", 7.0, True])
def test_version_of_a_python_call_is_a_whole_number(version):
    with pytest.raises(BadRequest, match="version must be a whole number"):
        Push(b"1", keys=("a",), collapse_key="n", version=version)


def test_pushes_that_are_not_stored_are_explained_by_their_end(api, queued):
    never = {**PUSH, "store": "never", "send_at": 60}
    replaced, cancelled, last = [
        one["id"]
        for one in send(
            api, [never, {**never, "collapse_key": "x"}, {**never, "send_at": None}]
        ).json()
    ]
    assert api.delete(f"{PUSHES}/{cancelled}").json()["state"] == "cancelled"
    records = [api.get(f"{PUSHES}/{one}").json() for one in (replaced, cancelled)]
    ends = [record["results"][0] for record in records]
    assert [(end["state"], end["reason"]) for end in ends] == [
        ("dropped", "replaced"),
        ("dropped", "cancelled"),
    ]
    words = [
        explain.of_message("u1", int(one), lambda _: [], list)
        for one in (replaced, cancelled, last)
    ]
    assert "It was replaced at" in words[0][-1]
    assert "It was cancelled at" in words[1][-1]
    assert "No session of the key is connected now." in words[2]


def test_stale_push_that_is_not_stored_has_its_reason(
    api, queued, django_capture_on_commit_callbacks
):
    """One that is stale for a part of its keys only has none: it has no row a key."""
    send(api, {**PUSH, "version": 2})
    never = {**PUSH, "version": 1, "store": "never"}
    before = dropped("stale")
    with django_capture_on_commit_callbacks(execute=True):
        whole, part = (
            send(api, {**never, "to": {"keys": keys}}).json()["id"]
            for keys in (["u1"], ["u1", "u2"])
        )
    assert dropped("stale") == before + 1
    (delivery,) = api.get(f"{PUSHES}/{whole}").json()["results"]
    assert (delivery["state"], delivery["reason"]) == ("dropped", "stale")
    assert "its version, 1, is lower" in " ".join(
        explain.of_message("u1", int(whole), lambda _: [], list)
    )
    assert api.get(f"{PUSHES}/{part}").json()["results"][0]["state"] == "live"
