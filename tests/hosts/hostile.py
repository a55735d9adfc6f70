"""What `tests.hosts.drf` puts in DRF's settings: each would open the API or break it."""

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAcceptable as Refusal
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle

from accounts.authentication import Caller
from accounts.models import SCOPES


def caller() -> Caller:
    return Caller("anybody", frozenset(SCOPES))


class Everybody(BaseAuthentication):
    def authenticate(self, request):
        return caller(), None


class Never(BaseThrottle):
    def allow_request(self, request, view):
        return False


class NotAcceptable(BaseContentNegotiation):
    def select_parser(self, request, parsers):
        raise Refusal

    def select_renderer(self, request, renderers, format_suffix=None):
        raise Refusal


def fine(error: Exception, context: Any) -> Response:
    return Response({"fine": True}, status=200)


def nothing(*args: Any, **kwargs: Any) -> Any:
    return {}
