"""The target of a request, and its host."""

import pytest
from twisted.web.http_headers import Headers

from push.server.http_channel import is_smuggling_risk
from push.server.http_target import BadTarget, read_target


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"/a?b=c", b"/a?b=c", b"one"),
        (b"*", b"*", b"one"),
        (b"http://two/a?b", b"/a?b", b"two"),
        (b"HTTP://two:80", b"/", b"two:80"),
        (b"https://user@two/%61", b"/%61", b"two"),
        (b"http://[::1]:8000/a", b"/a", b"[::1]:8000"),
    ],
)
def test_target_absolute_or_not_gives_path_and_host(target, path, host):
    headers = Headers({b"Host": [b"one"]})
    assert read_target(target, b"HTTP/1.1", headers) == path
    assert headers.getRawHeaders(b"Host") == [host]


@pytest.mark.parametrize(
    ("target", "hosts"),
    [
        (b"/", []),
        (b"/", [b"one", b"one"]),
        (b"one:443", [b"one"]),
        (b"http:///a", [b"one"]),
        (b"http://[/a", [b"one"]),
        (b"ftp://one/a", [b"one"]),
        (b"a", [b"one"]),
    ],
)
def test_target_without_one_host_and_a_path_is_refused(target, hosts):
    with pytest.raises(BadTarget):
        read_target(target, b"HTTP/1.1", Headers({b"Host": hosts} if hosts else {}))


def test_target_of_http_1_0_needs_no_host():
    assert read_target(b"/a", b"HTTP/1.0", Headers({})) == b"/a"


@pytest.mark.parametrize(
    ("line", "is_doubtful"),
    [
        (b"Transfer-Encoding: chunked", False),
        (b"transfer-encoding:\tCHUNKED ", False),
        (b"Transfer-Encoding: identity", True),
        (b"Transfer-Encoding: chunked, identity", True),
        (b"Content-Length: 16777216", False),
        (b"content-length: " + b"9" * 5000, True),
        (b"X-Content-Length: " + b"9" * 5000, False),
    ],
)
def test_has_doubtful_length_only_of_headers_read_in_two_ways(
    line: bytes, is_doubtful: bool
) -> None:
    assert is_smuggling_risk(line) is is_doubtful
