"""Below a path of a proxy's, which it may strip or keep."""

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from django.urls import set_script_prefix

from imgo_site import settings as module
from imgo_site.prefix import without_prefix
from push.routing import WebSocketRouter


@pytest.fixture
def below(settings):
    settings.FORCE_SCRIPT_NAME = "/push"
    set_script_prefix("/push/")  # as Django's handlers do, and its test clients do not
    yield
    set_script_prefix("/")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/push/api/v1/stats", "/api/v1/stats"),
        ("/api/v1/stats", "/api/v1/stats"),
        ("/push", "/"),
        ("/push/", "/"),
        ("/pushes", "/pushes"),
        ("/push/push/x", "/push/x"),
        ("/", "/"),
    ],
)
def test_without_prefix_takes_a_path_with_and_without_it(below, path, found):
    assert without_prefix(path) == found


def test_without_prefix_at_the_root_changes_nothing(settings):
    settings.FORCE_SCRIPT_NAME = None
    assert without_prefix("/push/api") == "/push/api"


@pytest.mark.parametrize("kept", ["", "/push"])
@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/api/v1/stats", 401), ("/1/count", 401), ("/dashboard/", 302)],
)
def test_request_below_a_prefix_finds_its_view(below, kept, path, status):
    answers = [Client().get(kept + path), async_to_sync(AsyncClient().get)(kept + path)]
    assert [answer.status_code for answer in answers] == [status, status]
    if status == 302:
        assert answers[0]["Location"] == "/push/admin/login/?next=/push/dashboard/"


@pytest.mark.parametrize("kept", ["", "/push"])
def test_wrong_path_below_a_prefix_has_the_shape_of_its_api(below, kept):
    client = Client()
    assert client.get(f"{kept}/1/nothing").json() == {"ret": 65534}
    assert client.get(f"{kept}/goim/nothing").json()["code"] == -404
    problem = client.get(f"{kept}/api/nothing").json()
    assert problem["detail"] == "There is nothing at /push/api/nothing."
    assert b"<a href='/push/'>" in client.get(f"{kept}/nothing").content
    assert client.get(f"{kept}/api/schema/").json()["servers"] == [{"url": "/push"}]


@pytest.mark.parametrize(
    ("path", "is_served"), [("/sub", True), ("/push/sub", True), ("/push/sub/x", False)]
)
async def test_websocket_below_a_prefix_is_served(below, path, is_served):
    served, sent = [], []

    async def application(scope, receive, send):
        served.append(scope["path"])

    async def nothing():
        return {}

    async def send(event):
        sent.append(event)

    scope = {"type": "websocket", "path": path, "headers": [(b"host", b"localhost")]}
    await WebSocketRouter(application)(scope, nothing, send)
    assert (bool(served), bool(sent)) == (is_served, not is_served)


@pytest.mark.parametrize(("given", "found"), [("", None), ("/push", "/push"), ("/a/b/", "/a/b")])
def test_prefix_is_read_from_the_environment(monkeypatch, given, found):
    monkeypatch.setenv("DJANGO_SCRIPT_NAME", given)
    assert module._script_name() == found


@pytest.mark.parametrize("given", ["push", "https://x/push", "/a b", "//x"])
def test_prefix_that_is_no_path_is_refused(monkeypatch, given):
    monkeypatch.setenv("DJANGO_SCRIPT_NAME", given)
    with pytest.raises(module.ImproperlyConfigured, match="DJANGO_SCRIPT_NAME"):
        module._script_name()
