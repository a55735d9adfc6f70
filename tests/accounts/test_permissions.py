"""HasScope: the scope that a view names for a method, or nothing."""

import pytest
from django.urls import path
from rest_framework.response import Response

from push.api.base import ApiView

pytestmark = pytest.mark.urls(__name__)


class ReadView(ApiView):
    scopes = {"GET": "read", "POST": "push"}

    def get(self, request):
        return Response({"done": True})

    post = get

    def put(self, request):
        return Response({"done": True})


class ForgottenView(ApiView):
    def get(self, request):
        return Response({"done": True})


urlpatterns = [path("read", ReadView.as_view()), path("forgotten", ForgottenView.as_view())]


@pytest.mark.parametrize(
    ("scopes", "method", "status"),
    [
        (["read"], "get", 200),
        (["read"], "head", 200),
        (["push", "tokens", "admin"], "get", 403),
        (["push"], "head", 403),
        (["push"], "post", 200),
        (["read"], "post", 403),
        ([], "get", 403),
        (["read", "push"], "put", 403),  # the view has it, and names no scope for it
        ([], "options", 200),
        (["read", "push"], "delete", 405),
        (["read", "push"], "patch", 405),
    ],
)
def test_a_method_needs_the_scope_that_the_view_names(caller, scopes, method, status):
    assert getattr(caller(*scopes), method)("/read").status_code == status


def test_a_view_that_names_no_scope_is_closed(api):
    assert api.get("/forgotten").status_code == 403


@pytest.mark.parametrize("method", ["get", "head", "post", "put"])
def test_nobody_gets_in_without_a_key(client, db, method):
    answer = getattr(client, method)("/read")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Api-Key"


def test_a_refusal_says_what_is_missing(client, caller):
    assert "Authorization: Api-Key" in client.get("/read").json()["detail"]
    assert "the scope 'read'" in caller("push").get("/read").json()["detail"]
