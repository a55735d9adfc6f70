"""The schema at /api/schema/ and the page at /api/docs/, for everyone who reaches this server."""

from functools import lru_cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer2
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from imgo_site.conf import load
from push.api.negotiation import JsonAlways, JsonOrYaml

# Only what this server has; Swagger UI sets styles by script and has its icons as data.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


@lru_cache(maxsize=1)
def schema_with(settings: str) -> Any:  # noqa: ARG001 - it is made anew when they change
    """The schema. Making it takes a quarter of a second, and anyone may ask for it."""
    return SchemaGenerator().get_schema(public=True)  # type: ignore[no-untyped-call]


class SchemaView(APIView):
    """The schema; `?format=yaml`, or an Accept header that asks for YAML."""

    authentication_classes = []
    permission_classes = []
    renderer_classes = [OpenApiJsonRenderer2, OpenApiYamlRenderer2]
    content_negotiation_class = JsonOrYaml
    schema = None

    def get(self, request: Request) -> Response:  # noqa: ARG002
        """All of it, with the values of the settings."""
        return Response(schema_with(repr(load())))


class DocsView(SpectacularSwaggerSplitView):
    """The schema as a page where calls can be tried."""

    authentication_classes = []
    permission_classes = []
    content_negotiation_class = JsonAlways
    http_method_names = ["get", "head"]  # an answer without a page cannot be rendered
    schema = None

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The page, or with `?script` the script that starts it."""
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        response["Content-Security-Policy"] = CSP
        return response
