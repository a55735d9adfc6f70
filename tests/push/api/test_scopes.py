"""Every path and method of the API: closed without a key, without the scope, open with it."""

import pytest
from django.urls import URLPattern
from rest_framework.test import APIClient

from accounts.models import SCOPES
from push.api import legacy, urls

METHODS = ("get", "post", "put", "patch", "delete")
# A client's call, with its own token instead of an API key.
OPEN = {legacy.MessagesView}


def scopes_of(view, method: str) -> set[str]:
    """The scopes of which a method needs one."""
    scope = view.scopes[method.upper()]
    return {scope} if isinstance(scope, str) else {*scope}


def endpoints() -> list:
    """(path, method, scopes) of everything that a view can do."""
    found = []
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        view = pattern.callback.cls
        path = "/" + str(pattern.pattern).replace("<path:key>", "u1").replace("<path:room>", "r1")
        if view not in OPEN:
            found += [
                pytest.param(path, method, scopes_of(view, method), id=f"{method} {path}")
                for method in METHODS
                if hasattr(view, method)
            ]
    return found


ENDPOINTS = endpoints()
every_endpoint = pytest.mark.parametrize(("path", "method", "scopes"), ENDPOINTS)


def status(client: APIClient, method: str, path: str) -> int:
    return getattr(client, method)(path).status_code


def test_the_walk_finds_the_endpoints():
    ids = {param.id for param in ENDPOINTS}
    assert {"post /1/push", "post /api/v1/pushes", "delete /api/v1/tokens/u1"} <= ids
    assert len(ids) == len(ENDPOINTS) >= 18


@every_endpoint
def test_only_a_key_with_the_scope_opens_it(caller, nodes, path, method, scopes):
    stranger = APIClient()
    for query in ("", "?apikey=", "?apikey=wrong"):
        assert status(stranger, method, f"{path}{query}") == 401, query
    for others in ((), set(SCOPES) - scopes):
        assert status(caller(*others), method, path) == 403, others
    for scope in scopes:
        assert status(caller(scope), method, path) not in {401, 403, 405, 500}, scope


@every_endpoint
@pytest.mark.django_db
def test_a_trusted_network_opens_imgos_and_goims_paths_alone(nodes, imgo, path, method, scopes):
    imgo(LEGACY_TRUSTED_NETWORKS=["192.0.2.0/24"])
    client = APIClient(REMOTE_ADDR="192.0.2.7")
    if path.startswith(("/1/", "/goim/")):
        assert status(client, method, path) not in {401, 403, 405, 500}
        assert status(client, method, f"{path}?apikey=wrong") == 401
    else:
        assert status(client, method, path) == 401


def test_v1_endpoint_with_unknown_query_parameter_is_a_problem(api):
    for param in ENDPOINTS:
        path, method, _ = param.values
        if not path.startswith("/api/v1/"):
            continue
        answer = getattr(api, method)(f"{path}?sinse=5")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), param.id
        assert "'sinse'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("forwarded", "is_trusted"),
    [
        ("192.0.2.7", True),
        ("203.0.113.9", False),
        ("192.0.2.7, 203.0.113.9", False),
        ("192.0.2.7, 10.0.0.1, 203.0.113.9", False),
        ("192.0.2.7, unknown", False),
        ("", False),
    ],
)
@pytest.mark.django_db
def test_a_trusted_network_behind_a_proxy_cannot_be_claimed(nodes, imgo, forwarded, is_trusted):
    imgo(LEGACY_TRUSTED_NETWORKS=["192.0.2.0/24", "10.0.0.0/8"], TRUSTED_PROXIES=["10.0.0.1"])
    client = APIClient(REMOTE_ADDR="10.0.0.1")
    answer = client.get("/1/count", headers={"X-Forwarded-For": forwarded})
    assert (answer.status_code != 401) is is_trusted


@pytest.mark.parametrize("path", sorted({param.values[0] for param in ENDPOINTS}))
def test_what_a_view_cannot_do_is_405_for_whoever_asks(api, path):
    can = {param.values[1] for param in ENDPOINTS if param.values[0] == path}
    for method in set(METHODS) - can:
        answer = getattr(api, method)(path)
        assert answer.status_code == 405
        assert set(answer["Allow"].split(", ")) >= {name.upper() for name in can}
        assert status(APIClient(), method, path) == 405
    assert status(api, "trace", path) == 405
    assert status(APIClient(), "head", path) == (401 if "get" in can else 405)
    assert api.generic("BREW", path).status_code == 405


def test_options_tell_the_methods_alone():
    for path in {param.values[0] for param in ENDPOINTS}:
        can = {param.values[1].upper() for param in ENDPOINTS if param.values[0] == path}
        answer = APIClient().options(path, headers={"origin": "https://elsewhere.example"})
        assert (answer.status_code, answer.content) == (200, b""), path
        assert can <= set(answer["Allow"].split(", ")) <= can | {"HEAD", "OPTIONS"}, path
        assert not any(name.startswith("Access-Control-") for name in answer.headers), path


def test_a_refused_push_is_not_accepted(caller, db):
    from offline.models import Message

    body = '{"to": {"key": "a"}, "body": 1}'
    for client in (APIClient(), caller("read", "tokens", "admin")):
        client.post("/api/v1/pushes", body, content_type="application/json")
        client.post("/1/push?uid=1", body, content_type="application/json")
    assert not Message.objects.exists()
