"""Whatever is sent to any operation, the answer is one that the schema tells of.

schemathesis makes requests of the schema, good ones and such that break it, and looks at status,
content type, headers and body of each answer, at what it says to wrong methods and wrong keys.
"""

import json
import os
from collections.abc import Iterator

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from imgo_site.wsgi import application
from tests.longer_proofs import IS_SHORT, examples
from tests.push.devices.push_service import VAPID_PRIVATE

KEY = "the bootstrap key of the tests of the schema"
# For each operation, besides all that is at a limit. Without it the same few in every run; a long
# run, SCHEMA_EXAMPLES=300, looks further, at others each time.
EXAMPLES = os.environ.get("SCHEMA_EXAMPLES")

# Lines of a stream, some of which are pushes.
text = st.text(st.characters(codec="utf-8"), max_size=20)
lines = st.sampled_from(['{"to": {"key": "u1"}, "body": 1}', "{}", ""]) | text
schemathesis.openapi.media_type(
    "application/x-ndjson", st.lists(lines, max_size=4).map("\n".join).map(str.encode)
)
schemathesis.serializer.alias("application/x-ndjson", "text/plain")

schema = schemathesis.openapi.from_wsgi("/api/schema/", application)
schema.config.update(headers={"Authorization": f"Api-Key {KEY}"})
# All that is at a limit, of each value: a hundred requests for most operations.
schema.config.phases.coverage.enabled = not IS_SHORT


@pytest.fixture
def _callable(db, nodes, imgo) -> Iterator[None]:
    """The key of `schema` is valid; requests leave this test's transaction alone."""
    imgo(API_KEY=KEY, WEBPUSH_PRIVATE_KEY=VAPID_PRIVATE, FCM_CREDENTIALS="{}")
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def needs_more_than_a_schema(case) -> bool:
    """Whether a request may be refused for what no schema says.

    That is a point off the curve, a host that is not allowed, a room with `notify`, or U+0000 in
    `info`.
    """
    if isinstance(case.body, dict) and "\\u0000" in json.dumps(case.body.get("info")):
        return True
    is_push = isinstance(case.body, dict) and {"notify", "notify_after"} & case.body.keys()
    return bool(is_push) or (case.method == "POST" and case.path.endswith("/devices"))


@schema.parametrize()
@settings(
    max_examples=int(EXAMPLES or examples(10)),
    derandomize=EXAMPLES is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.usefixtures("_callable")
@pytest.mark.timeout(600)
def test_an_answer_is_as_the_schema_says(case):
    excluded = [positive_data_acceptance] if needs_more_than_a_schema(case) else []
    answer = case.call_and_validate(excluded_checks=excluded)
    if answer.status_code == 202 and isinstance(case.body, list):
        items = answer.json()
        assert len(items) == len(case.body)
        assert all(set(item) in ({"id"}, {"error"}) for item in items)
