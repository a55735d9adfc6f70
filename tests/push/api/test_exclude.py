"""Pushes with `exclude` over the API, and their records."""

import pytest

from push.status import explain

from .test_v1 import PUSHES, check_problem, send

pytestmark = pytest.mark.django_db

PUSH = {"to": {"key": "u1"}, "body": 1}
SESSION = "5938fe7d-12"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"exclude": [SESSION]}, 202),
        ({"exclude": [SESSION] * 10, "to": {"room": "r"}}, 202),
        ({"exclude": []}, 202),
        ({"exclude": [SESSION] * 11}, 400),
        ({"exclude": [""]}, 400),
        ({"exclude": ["a,b"]}, 400),
        ({"exclude": ["a" * 41]}, 400),
        ({"exclude": SESSION}, 400),
        ({"exclude": [SESSION], "to": {"all": True}}, 400),
    ],
)
def test_exclude_is_accepted_or_refused(api, queued, members, code):
    answer = send(api, {**PUSH, **members})
    assert answer.status_code == code, answer.content
    if code == 400:
        check_problem(answer, 400, "bad_request")


@pytest.mark.parametrize("send_at", [None, 60])
def test_record_and_explain_name_the_excluded_sessions(api, queued, send_at):
    push = {**PUSH, "exclude": [SESSION, "s-1"], "send_at": send_at}
    push_id = send(api, push).json()["id"]
    assert api.get(f"{PUSHES}/{push_id}").json()["exclude"] == [SESSION, "s-1"]
    sentences = explain.of_message("u1", int(push_id), lambda _: [], list)
    assert any(f"these sessions: {SESSION}, s-1." in one for one in sentences)
