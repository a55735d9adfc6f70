"""manage.py hooks: the list without nodes and with some, and what a try shows of each answer."""

import base64

import pytest
from django.core.management import CommandError

from push.hooks.client import Hook
from push.hooks.figures import HookFigures
from push.management.commands.hooks import _ping_all
from push.registry.base import ProcessEntry
from push.registry.redis_registry import RedisRegistry
from push.status import explain
from tests.push.hooks.fake_backend import backend, response

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
URL = "https://shop.example.com/imgo/hook/authenticate/"
FIGURES = HookFigures({"answered": 4, "timeout": 2, "abandoned": 9}, 0.5)

pytestmark = pytest.mark.django_db


@pytest.fixture
def hooked(imgo):
    imgo(AUTHENTICATE_URL=URL, HOOK_SECRETS=[SECRET])


@pytest.fixture
def nodes(settings, redis_client):
    """Announces two nodes with their figures; the second one's circuit is open."""
    registry = RedisRegistry(settings.REDIS_URL)
    open_one = HookFigures({"timeout": 5}, is_open=True)
    for name, figures in (("one:8000", FIGURES), ("two:8000", open_one)):
        entry = ProcessEntry(name, "node", name, 1.0, hooks={"authenticate": figures})
        registry.announce_process(entry)
    yield
    registry.close()


def test_list_has_the_sums_of_all_nodes(run, data, hooked, nodes):
    assert data("hooks") == [
        {
            "hook": "authenticate", "url": URL, "calls": 11, "failures": {"timeout": 7},
            "mean_ms": 125.0, "open_on": ["two:8000"],
        }
    ]  # fmt: skip
    assert "circuit open on two:8000" in run("hooks")


def test_list_without_calls_has_zeros(run, data, hooked, settings, redis_client):
    (row,) = data("hooks")
    assert (row["calls"], row["failures"], row["mean_ms"], row["open_on"]) == (0, {}, None, [])


def test_list_without_hooks_names_the_setting(run):
    assert "AUTHENTICATE_URL" in run("hooks")


def test_ping_with_a_wrong_secret_is_an_error_of_one_line(run, imgo):
    imgo(AUTHENTICATE_URL=URL, HOOK_SECRETS=["short"])
    with pytest.raises(CommandError, match="Secret 1 of HOOK_SECRETS"):
        run("hooks", "ping")


@pytest.fixture
def serverless(settings, hooked, imgo, closed_port):
    """No Redis, and nobody listens where the server should."""
    settings.REDIS_URL = ""
    imgo(HTTP_PORT=closed_port, API_KEY="k" * 40)


def test_list_without_a_server_has_the_urls_and_says_why(run, data, serverless, capsys):
    assert URL in run("hooks")
    assert data("hooks")[0]["calls"] is None
    assert "not known here: No server answers at" in capsys.readouterr().err


def test_explain_names_hooks_that_keep_failing(hooked, nodes):
    (line,) = [line for line in explain.of_key("u1", 1) if "hook" in line]
    assert line == (
        "The hook authenticate kept failing, and is called only now and then by two:8000: clients "
        "are refused with 4013 and come back later. 'manage.py hooks ping' shows your backend's "
        "answer."
    )


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response(200, {"key": "u1"}), "the key 'u1'"),
        (response(403, {"error": "no such user"}), "refused with status 403: no such user"),
        (response(401, b"<p>no"), "refused with status 401"),
    ],
)
async def test_ping_takes_a_refusal_for_a_good_answer(imgo, answer, text):
    assert await ping(imgo, answer) == [("authenticate", True, text)]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response(500, {"detail": "no database"}), "it answered with status 500: no database"),
        (
            response(302, None, "Location: /login/"),
            "it answered with status 302, a redirect to '/login/', which is not followed",
        ),
        (response(200, {"key": 7}), "its answer cannot be used: A key must be a non-empty string."),
        (response(200, b"<p>"), "its answer cannot be used: It is not JSON."),
        (
            response(401, {"code": "bad_signature", "error": "too old"}),
            "it refused imgo's signature: too old",
        ),
    ],
)
async def test_ping_shows_why_an_answer_is_not_usable(imgo, answer, text):
    assert await ping(imgo, answer) == [("authenticate", False, text)]


async def test_ping_shows_that_an_answer_does_not_end(imgo):
    unfinished = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"
    reason = "no answer within 0.3 s"
    assert await ping(imgo, unfinished, timeout=0.3) == [("authenticate", False, reason)]


async def ping(imgo, answer: bytes, timeout: float = 30.0) -> list[tuple[str, bool, str]]:
    """Run `hooks ping` against a backend with this answer. `timeout`: seconds."""
    async with backend(lambda _: answer) as served:
        imgo(AUTHENTICATE_URL=served.url, HOOK_SECRETS=[SECRET], HOOK_TIMEOUT=timeout)
        rows = await _ping_all([Hook.AUTHENTICATE])
    return [(row["hook"], row["ok"], row["answer"]) for row in rows]
