"""The schema at api/schema/ and the page at api/docs/, for everyone who reaches this server."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework.request import Request

from imgo_site.errors import BadRequest
from push.api.base import ApiView
from push.pages import render

# Only what this server has; Swagger UI sets styles by script and has its icons as data.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SCHEMA_PATH = "/api/schema/"


class SchemaView(ApiView):
    """The schema; `?format=yaml`, or an Accept header that asks for YAML."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        """Return the schema. Raises `BadRequest` for formats but JSON and YAML."""
        # Imported here: it loads drf-spectacular, which would delay the start of every process.
        from push.api.docs.generator import rendered

        accepted = "yaml" if "yaml" in request.headers.get("Accept", "") else "json"
        kind = request.query_params.get("format", accepted)
        if kind not in {"json", "yaml"}:
            raise BadRequest("format must be json or yaml.")
        text = rendered(kind, prefix_of(reverse("imgo:schema")))
        return HttpResponse(text, content_type=f"application/{kind}", headers={"Vary": "Accept"})


def prefix_of(path: str) -> str:
    """The path below which imgo is served, "" for none, from the path of the schema."""
    return path.removesuffix(SCHEMA_PATH)


class DocsView(ApiView):
    """The schema as a page where calls can be tried."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        """The page. It is the same for everyone, so it gets no user and no messages."""
        page: HttpRequest = request._request
        response = render(page, "api_docs.html", {})
        response["Content-Security-Policy"] = CSP
        return response
