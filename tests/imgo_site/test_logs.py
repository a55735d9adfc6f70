"""Request ids, how log lines look, and what must not be in them."""

import io
import json
import logging
import os
from pathlib import Path

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client

from imgo_site import logs
from imgo_site.middleware import RequestMiddleware, _hide_secrets
from push.api import v1
from tests import PATIENCE, fork_server

pytestmark = pytest.mark.services

SECRET = "a-secret-that-must-stay-one"


@pytest.fixture
def written():
    """Everything that is logged, by formatter: `written("json")`."""
    handlers = []

    def listen(formatter: logging.Formatter) -> io.StringIO:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handler.addFilter(logs.RequestFilter())
        logging.getLogger().addHandler(handler)
        handlers.append(handler)
        return stream

    yield listen
    for handler in handlers:
        logging.getLogger().removeHandler(handler)


@pytest.fixture
def access_log():
    logger = logging.getLogger("imgo.access")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


# Request ids


@pytest.mark.parametrize("sane", ["a", "6f9619ff-8b86-d011", "Root=1-67891233-abcdef", "x" * 100])
def test_a_sane_request_id_is_kept(client, sane):
    assert client.get("/healthz", headers={"X-Request-ID": sane})["X-Request-ID"] == sane


@pytest.mark.parametrize("bad", ["", "x" * 101, "a b", 'a"b', "é", "<script>", "a\tb", "a\n"])
def test_a_request_id_that_is_not_fit_for_a_log_is_replaced(client, bad):
    given = client.get("/healthz", headers={"X-Request-ID": bad})["X-Request-ID"]
    assert given != bad
    assert logs.sane_request_id(given) == given


def test_every_answer_has_an_id_of_its_own(client):
    answers = [client.get("/healthz"), client.get("/nothing"), client.get("/metrics")]
    assert [answer.status_code for answer in answers] == [200, 404, 401]
    assert len({answer["X-Request-ID"] for answer in answers}) == 3


async def test_it_is_the_same_under_an_asgi_server(async_client):
    answer = await async_client.get("/healthz", headers={"X-Request-ID": "abc"})
    assert answer["X-Request-ID"] == "abc"


def test_all_lines_of_a_request_have_its_id_and_no_others(rf, written):
    lines = written(logs.LineFormatter("{name}: {message}", style="{"))
    logger = logging.getLogger("some.view")

    def view(request):
        logger.warning("inside")
        return _answer()

    RequestMiddleware(view)(rf.get("/", headers={"X-Request-ID": "abc"}))
    logger.warning("outside")
    assert lines.getvalue() == "some.view: inside [request abc]\nsome.view: outside\n"


def _answer():
    return HttpResponse()


@pytest.mark.django_db
def test_what_is_logged_while_a_stream_is_answered_has_the_id_too(rf, written):
    lines = written(logs.LineFormatter("{message}", style="{"))
    closed = []

    def pieces():
        try:
            for n in range(2):
                logging.getLogger("some.view").warning("piece %d", n)
                yield b"%d" % n
        finally:
            closed.append(True)

    answer = RequestMiddleware(lambda _: StreamingHttpResponse(pieces()))(
        rf.get("/", headers={"X-Request-ID": "abc"})
    )
    assert b"".join(answer) == b"01"
    assert lines.getvalue() == "piece 0 [request abc]\npiece 1 [request abc]\n"
    answer.close()
    assert closed == [True]


# JSON


def test_a_json_line_has_known_fields_only(written, rf):
    lines = written(logs.JsonLines())
    request = rf.get(f"/1/push?apikey={SECRET}")
    with logs.within("abc"):
        logging.getLogger("some").error(
            "x %d", 1, extra={"request": request, "push_id": "7", "data": {"body": SECRET}}
        )
    line = json.loads(lines.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "ERROR",
        "logger": "some",
        "message": "x 1",
        "push_id": "7",
        "request_id": "abc",
    }


def test_a_traceback_is_one_json_line(written):
    lines = written(logs.JsonLines())
    try:
        raise ValueError("what went\nwrong")
    except ValueError:
        logging.getLogger("some").exception("failed")
    (line,) = lines.getvalue().splitlines()
    assert "ValueError: what went" in json.loads(line)["exc_info"]


@pytest.mark.parametrize(("setting", "status"), [("json", 0), ("JSON", 0), ("yaml", 1)])
def test_the_setting_is_json_or_line(setting, status):
    code = "import django, logging; django.setup(); logging.getLogger('a').warning('b')"
    environment = {
        **os.environ,
        "LOG_FORMAT": setting,
        "DJANGO_SETTINGS_MODULE": "imgo_site.settings",
    }
    done = fork_server.run(["-c", code], Path.cwd(), environment, timeout=PATIENCE)
    assert done.returncode == status
    if status:
        assert "LOG_FORMAT='yaml': say json, or line." in done.stderr
    else:
        assert json.loads(done.stderr)["message"] == "b"


# Secrets


@pytest.mark.django_db
def test_our_access_log_has_the_path_and_never_the_query(client, access_log, written):
    lines = written(logs.JsonLines())
    client.get(f"/metrics?apikey={SECRET}")
    (line,) = [
        found
        for found in map(json.loads, lines.getvalue().splitlines())
        if found["logger"] == "imgo.access"
    ]
    assert (line["method"], line["path"]) == ("GET", "/metrics")
    assert line["status"] == 401
    assert line["seconds"] >= 0
    assert SECRET not in lines.getvalue()


@pytest.mark.parametrize("name", ["apikey", "ApiKey", "%61pikey", "token"])
def test_a_server_that_logs_the_url_does_not_get_to_see_a_secret(rf, name):
    request = rf.get(f"/1/push?{name}={SECRET}&uid=1")
    request.META["RAW_URI"] = f"/1/push?{name}={SECRET}&uid=1"
    seen = {}

    def view(inner):
        seen.update(inner.GET.items())
        return _answer()

    RequestMiddleware(view)(request)
    assert SECRET in seen.values()
    assert seen["uid"] == "1"
    for variable in ("RAW_URI", "QUERY_STRING"):
        assert SECRET not in request.META[variable]
        assert request.META[variable].endswith("=hidden&uid=1")


def test_other_queries_stay_as_they_are():
    meta = {"RAW_URI": "/a?b=%20&c", "QUERY_STRING": "b=%20&c"}
    for name in meta:
        _hide_secrets(changed := dict(meta), name)
        assert changed == meta


@pytest.mark.django_db
def test_a_bug_is_logged_with_the_id_and_without_the_query(written, monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(v1, "window_of", fail)
    monkeypatch.setattr("imgo_site.conf.conf.API_KEY", SECRET, raising=False)
    lines = written(logs.JsonLines())
    client = Client(raise_request_exception=False)
    answer = client.get(f"/api/v1/tokens?apikey={SECRET}", headers={"X-Request-ID": "abc"})
    assert answer.status_code == 500
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    (line,) = [line for line in found if line["logger"] == "django.request"]
    assert line["request_id"] == "abc"
    assert "RuntimeError: a bug" in line["exc_info"]
    assert SECRET not in lines.getvalue()


def test_a_callers_mistake_logs_no_traceback(client, caplog):
    answer = client.post("/admin/login/", {f"field{n}": "x" for n in range(20_000)})
    assert answer.status_code == 400
    assert not [record for record in caplog.records if record.exc_info]


# Nothing that others chose makes a line of its own

FORGED = "a\nFORGED b\r\x0b\x1b[31m\x85\u2028FORGED"


def test_line_of_a_message_with_line_ends_stays_one(written):
    stream = written(logs.LineFormatter("{levelname} {message}", style="{"))
    logging.getLogger("imgo.test").error("path %s", FORGED)
    (line,) = stream.getvalue().splitlines()
    assert line == r"ERROR path a\nFORGED b\r\x0b\x1b[31m\x85\u2028FORGED"


def test_line_of_a_message_as_json_stays_one(written):
    stream = written(logs.JsonLines())
    logging.getLogger("imgo.test").error("path %s", FORGED)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == f"path {FORGED}"


def test_lines_of_a_traceback_are_indented(written):
    stream = written(logs.LineFormatter("{levelname} {message}", style="{"))
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("imgo.test").exception("it failed")
    first, *others = stream.getvalue().splitlines()
    assert first == "ERROR it failed"
    assert others
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize("path", ["/x%0AFORGED", "/x%0D%0AFORGED%1B[31m", "/x%E2%80%A8FORGED"])
def test_access_line_of_a_path_with_a_line_end_stays_one(written, access_log, client, path):
    stream = written(logs.LineFormatter("{name} {message}", style="{"))
    client.get(path)
    lines = [line for line in stream.getvalue().splitlines() if "FORGED" in line]
    assert [line.startswith("imgo.access GET /x\\") for line in lines] == [True]
