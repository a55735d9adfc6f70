"""Base of all API views, independent of the project's DRF settings.

DRF reads each setting that a view does not name from `REST_FRAMEWORK`. A project with its own API
sets that for its own views. Applied to ours, it could open the API to everyone, or close it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from django.db.transaction import non_atomic_requests
from django.http import HttpRequest
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.settings import DEFAULTS, IMPORT_STRINGS, APISettings
from rest_framework.views import APIView

from accounts.authentication import QUERY_PARAMETER, ApiKeyAuthentication
from accounts.permissions import HasScope
from imgo_site.errors import BadRequest
from push.api.negotiation import JsonAlways, MethodsAlone
from push.api.problems import exception_handler

# Must not be empty: DRF would then read the project's settings.
OWN_SETTINGS: Any = {"UNAUTHENTICATED_USER": None, "UNAUTHENTICATED_TOKEN": None}


class ApiRequest(Request):
    """DRF's request, with the user None if there are no credentials, whatever the project sets."""

    def _not_authenticated(self) -> None:
        self._authenticator = None
        self.user = None  # type: ignore[assignment]
        self.auth = None


class Json(JSONRenderer):
    """Renderer for JSON as in RFC 8259: UTF-8, compact, without NaN."""

    ensure_ascii = False
    compact = True
    strict = True


class ApiView(APIView):
    """Base view with imgo's authentication, permissions, formats and errors."""

    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope]
    parser_classes = [JSONParser]
    renderer_classes = [Json]
    throttle_classes = []
    content_negotiation_class = JsonAlways
    metadata_class = MethodsAlone
    versioning_class = None
    schema = None  # keeps imgo out of the project's own schema; push/api/docs makes imgo's
    settings = APISettings(OWN_SETTINGS, DEFAULTS, IMPORT_STRINGS)

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return the view, exempt from `ATOMIC_REQUESTS`: pushes have their own transaction."""
        return non_atomic_requests(super().as_view(**initkwargs))

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:  # noqa: ARG002
        """Return the request with this view's parsers, authenticators and negotiator."""
        return ApiRequest(
            request,
            parsers=self.get_parsers(),
            authenticators=self.get_authenticators(),
            negotiator=self.get_content_negotiator(),
            parser_context=self.get_parser_context(request),
        )

    def get_exception_handler(self) -> Callable[..., Any]:
        """Return our handler: problem details."""
        return exception_handler

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Return DRF's headers, and one against caching: answers hold keys, tokens and counts."""
        return {**super().default_response_headers, "Cache-Control": "no-store"}


class V1View(ApiView):
    """Base view of /api/v1: an unknown query parameter is an error, as an unknown JSON member is.

    The paths of imgo (Go) and goim ignore such parameters, as those servers did. `/metrics` and
    the probes ignore them too, because tools add their own.
    """

    query_names: ClassVar[Mapping[str, Collection[str]]] = {}  # by method; HEAD's are GET's

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the caller, then the names in the query. Raises `BadRequest`."""
        super().initial(request, *args, **kwargs)
        method = "GET" if request.method == "HEAD" else request.method or ""
        if method == "OPTIONS" or not hasattr(self, method.lower()):
            return  # answered with the names of the methods, or with 405
        allowed = self.query_names.get(method, ())
        for name in request.query_params:
            if name not in allowed and name != QUERY_PARAMETER:
                names = ", ".join(allowed) or "none"
                raise BadRequest(f"The query has no parameter {name!r}; it has: {names}.")
