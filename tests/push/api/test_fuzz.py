"""Whatever is sent, no answer is a 5xx and none is without its shape."""

import json
from string import printable
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imgo_site.conf import conf
from tests.longer_proofs import examples

pytestmark = pytest.mark.django_db

# The API does not keep anything between two examples that could matter to the second.
fuzz = settings(
    deadline=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
text = st.text(st.characters(codec=None), max_size=10) | st.sampled_from(["", "a\0", "\ud800", "é"])
numbers = st.integers() | st.sampled_from([-1, 0, 5, 1000, 2**31, 2**53, 2**63, 2**64, 10**400])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
targets = st.fixed_dictionaries(
    {}, optional={"key": text, "keys": st.lists(text, max_size=3), "room": text, "all": values}
)
pushes = st.fixed_dictionaries(
    {"to": targets | st.sampled_from([{"key": "u1"}, {"room": "r"}, {"all": True}])},
    optional={
        "body": values,
        "op": numbers,
        "ttl": numbers,
        "store": st.sampled_from(["always", "never"]) | values,
        "dedupe_id": text,
        "ensure": values,
    },
)
anything = st.binary(max_size=200) | (pushes | st.lists(pushes | values, max_size=3) | values).map(
    lambda value: json.dumps(value).encode()
)
raw_bytes = st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode())


@fuzz
@example(b'{"to":{"key":"u1"},"body":"\\udc00"}')
@example(b'[{"to":{"key":"u1"},"body":' + b"[" * 990 + b"]" * 990 + b"}]")
@given(anything)
def test_pushes(api, data):
    answer = api.post("/api/v1/pushes", data, content_type="application/json")
    assert answer.status_code in {202, 400, 413}
    items = answer.json()
    if answer.status_code != 202:
        assert items["code"] in {"bad_request", "too_large"}
    for item in items if isinstance(items, list) else []:
        assert set(item) in ({"id"}, {"error"})


@fuzz
@given(
    st.fixed_dictionaries(
        {"key": text | values},
        optional={"token": text | values, "expires_in": numbers, "rooms": values | st.lists(text)},
    ).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=100)
)
def test_tokens(api, data):
    answer = api.post("/api/v1/tokens", data, content_type="application/json")
    assert answer.status_code in {201, 400}
    assert "json" in answer["Content-Type"]


def check_legacy(answer) -> None:
    assert answer.status_code in {200, 400, 413}
    assert answer.json() == {"ret": 1 if answer.status_code == 200 else 65534}


queries = st.dictionaries(
    st.sampled_from(["uid", "rid", "ensure", "token", "expire", "server", "apikey2"]) | text,
    numbers.map(str) | text,
    max_size=4,
).map(
    lambda pairs: "&".join(
        f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}"
        for name, value in pairs.items()
    )
)
query_strings = queries | st.text(printable.replace("#", ""), max_size=30).map(quote)


@fuzz
@pytest.mark.parametrize("path", ["/1/push?uid=1", "/1/push/room?rid=1", "/1/push/all"])
@given(raw_bytes)
def test_any_bytes_are_a_message(api, path, data):
    answer = api.generic("POST", path, data)
    assert answer.status_code == (200 if data else 400)
    check_legacy(answer)


@fuzz
@pytest.mark.parametrize("path", ["/1/pushs", "/1/admin/token/new"])
@given(
    raw_bytes
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("u", "m", "uid", "token", "expire"), values)
    ).map(lambda value: json.dumps(value).encode())
    | queries.map(str.encode)
)
def test_any_bytes_are_a_request_or_a_mistake(api, path, data):
    check_legacy(api.generic("POST", path, data))


@fuzz
@pytest.mark.parametrize(
    "path", ["/1/push", "/1/pushs", "/1/push/room", "/1/push/all", "/1/admin/token/new"]
)
@given(query_strings, st.binary(max_size=20))
def test_any_query(api, path, query, data):
    check_legacy(api.generic("POST", f"{path}?{query}", data))


@fuzz
@given(query_strings)
def test_any_question_for_messages(client, query):
    answer = client.get(f"/1/msg/get?{query}")
    assert answer.status_code in {400, 401}
    assert answer.json()["ret"] in {65533, 65534}


@fuzz
@pytest.mark.parametrize("path", ["/1/", "/api/v1/", "/api/v1/keys/", "/api/v1/rooms/", "/"])
@given(st.text(st.characters(codec=None), max_size=20))
def test_any_path(api, nodes, path, rest):
    answer = api.get(path + quote(rest, errors="surrogatepass"))
    assert answer.status_code < 500


@fuzz
@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_any_authorization(client, header):
    answer = client.get("/api/v1/nodes", HTTP_AUTHORIZATION=header)
    assert answer.status_code == 401
    answer = client.get("/api/v1/nodes", HTTP_AUTHORIZATION=f"Api-Key {header}")
    assert answer.status_code == 401


def test_the_largest_body_is_accepted_and_one_byte_more_is_not(api):
    for size, status in ((conf.MAX_BODY, 200), (conf.MAX_BODY + 1, 413)):
        assert api.generic("POST", "/1/push?uid=1", b"x" * size).status_code == status
