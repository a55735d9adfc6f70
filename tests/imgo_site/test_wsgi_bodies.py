"""Request bodies under a WSGI server: the same answers with a length and in chunks."""

import io
import json
from wsgiref.util import setup_testing_defaults

import pytest

from imgo_site.wsgi import application
from offline.models import Message

KEY = "bootstrap-key-of-the-test"
PUSH = json.dumps({"to": {"key": "u1"}, "body": 1, "store": "never"}).encode()

BROKEN = b"broken"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _key(imgo) -> None:
    imgo(API_KEY=KEY, MAX_STRAY_BODY=100, MAX_FORM=300, MAX_REQUEST=300, MAX_BODY=200)


class Source(io.BytesIO):
    """An input that notes how much was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.taken = 0

    def read(self, size=-1):
        if self.getvalue() == BROKEN:
            raise OSError("the client has gone, or a chunk is malformed")
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.fixture(params=["length", "chunked"])
def ask(request):
    """Send a body; return the status and the answer, and the input."""

    def send(path: str, body: bytes, **more: str) -> tuple[int, bytes, Source]:
        path, _, query = path.partition("?")
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "QUERY_STRING": query}
        setup_testing_defaults(environ)
        source = Source(body)
        environ |= {"HTTP_HOST": "testserver", "HTTP_AUTHORIZATION": f"Api-Key {KEY}", **more}
        environ |= {"wsgi.input": source, "wsgi.input_terminated": True}
        if request.param == "length":
            environ["CONTENT_LENGTH"] = str(len(body))
        else:
            environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        statuses = []
        answer = application(environ, lambda status, headers, *_: statuses.append(status))
        text = b"".join(answer)
        answer.close()
        return int(statuses[0][:3]), text, source

    return send


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/pushes", PUSH, 202),
        ("/api/v1/pushes", b"[%b,%b]" % (PUSH, PUSH), 202),
        ("/api/v1/pushes/stream", PUSH + b"\n" + PUSH, 200),
        ("/api/v1/tokens", b'{"key":"u1"}', 201),
        ("/1/push?uid=1", b"1", 200),
        ("/1/pushs", b'{"u":[1],"m":{}}', 200),
        ("/1/push/all", b"1", 200),
        ("/1/admin/token/new", b"uid=1&token=a-token-of-the-test&expire=60", 200),
        ("/goim/push/all?operation=1000", b"1", 200),
    ],
)
def test_body_with_and_without_a_length_is_read(ask, path, body, status):
    found, text, _ = ask(path, body)
    assert found == status, text


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/api/v1/pushes", 301),
        ("/api/v1/tokens", 301),
        ("/1/push?uid=1", 201),
        ("/goim/push/all?operation=1000", 201),
    ],
)
def test_body_above_the_limit_of_its_path_is_refused(ask, path, size):
    status, text, source = ask(path, b"x" * 10_000_000)
    assert status == 413, text
    assert source.taken <= 2**17
    assert ask(path, b"1" * size)[0] == 413


def test_body_of_a_caller_without_a_key_is_not_read(ask):
    status, _, source = ask("/api/v1/pushes", PUSH, HTTP_AUTHORIZATION="")
    assert (status, source.taken) == (401, 0)


@pytest.mark.parametrize("path", ["/api/v1/pushes", "/1/push?uid=1", "/1/pushs", "/api/v1/tokens"])
def test_body_that_breaks_off_is_a_mistake_without_a_traceback(ask, caplog, path):
    status, text, _ = ask(path, BROKEN)
    assert status == 400
    assert b"ended early" in text or b"65534" in text
    assert not [line for line in caplog.records if line.exc_info or line.levelname == "ERROR"]


def send_short(path: str, body: bytes, announced: int) -> int:
    """Send a body that ends before its announced length; return the status."""
    path, _, query = path.partition("?")
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environ)
    environ |= {"HTTP_HOST": "testserver", "HTTP_AUTHORIZATION": f"Api-Key {KEY}"}
    environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(announced)}
    statuses = []
    answer = application(environ, lambda status, headers, *_: statuses.append(status))
    answer.close()
    return int(statuses[0][:3])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/1/push?uid=1", b"hello"),
        ("/1/push/room?rid=1", b"hello"),
        ("/1/pushs", b'{"u":[1],"m":{}}'),
        ("/goim/push/mids?operation=1000&mids=1", b"hello"),
        ("/goim/push/all?operation=1000", b"hello"),
        ("/api/v1/pushes", PUSH),
        ("/api/v1/pushes", b"[" + PUSH + b"]"),
    ],
)
@pytest.mark.parametrize(("late", "status"), [(False, 400), (True, 408)])
def test_body_that_ends_early_is_refused_and_nothing_is_stored(imgo, path, body, late, status):
    imgo(API_KEY=KEY, BODY_TIMEOUT=1e-9 if late else 100.0)
    for announced in (len(body) + 1, len(body) + 100):
        assert send_short(path, body, announced) == status
    assert not Message.objects.exists()
    assert send_short(path, body, len(body)) < 300
