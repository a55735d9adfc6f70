"""How large a body may be, by method and path."""

import pytest

from imgo_site.conf import conf
from imgo_site.request_limits import body_limit, find_view


@pytest.mark.parametrize(
    ("method", "path", "setting"),
    [
        ("POST", "/api/v1/pushes", "MAX_REQUEST"),
        ("POST", "/api/v1/pushes/stream", "MAX_REQUEST"),
        ("POST", "/1/pushs", "MAX_REQUEST"),
        ("POST", "/1/push", "MAX_BODY"),
        ("POST", "/goim/push/keys", "MAX_BODY"),
        ("POST", "/goim/push/all", "MAX_BODY"),
        ("POST", "/api/v1/tokens", "MAX_FORM"),
        ("POST", "/admin/login/", "MAX_FORM"),
        ("POST", "/demo/push", "MAX_FORM"),
        ("GET", "/api/v1/pushes", "MAX_STRAY_BODY"),
        ("DELETE", "/api/v1/tokens/a", "MAX_STRAY_BODY"),
        ("POST", "/healthz", "MAX_STRAY_BODY"),
        ("PATCH", "/api/v1/rooms", "MAX_STRAY_BODY"),
        ("POST", "/nowhere", "MAX_STRAY_BODY"),
        ("POST", "/sub", "MAX_STRAY_BODY"),
    ],
)
def test_body_limit_is_that_of_method_and_path(method, path, setting):
    assert body_limit(method, find_view(path)) == getattr(conf, setting)
