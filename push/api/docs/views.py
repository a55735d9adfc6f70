"""Views of the schema at api/schema/ and the page at api/docs/, both without authentication."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework.request import Request

from imgo_site.errors import BadRequest
from push.api.base import ApiView
from push.pages import render

# Only files of this server. Swagger UI sets styles by script and has its icons as data.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SCHEMA_PATH = "/api/schema/"


class SchemaView(ApiView):
    """The schema as JSON; as YAML with `?format=yaml` or an Accept header that names YAML."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        """Return the schema. Raises `BadRequest` for formats other than JSON and YAML."""
        # Imported here: it loads drf-spectacular, which would delay the start of every process.
        from push.api.docs.generator import rendered

        accepted = "yaml" if "yaml" in request.headers.get("Accept", "") else "json"
        kind = request.query_params.get("format", accepted)
        if kind not in {"json", "yaml"}:
            raise BadRequest("format must be json or yaml.")
        text = rendered(kind, prefix_of(reverse("imgo:schema")))
        return HttpResponse(text, content_type=f"application/{kind}", headers={"Vary": "Accept"})


def prefix_of(path: str) -> str:
    """Return the path below which imgo is served, "" for none. `path`: the schema's path."""
    return path.removesuffix(SCHEMA_PATH)


class DocsView(ApiView):
    """Page that shows the schema and can send calls."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        """Return the page. It is the same for every visitor, so it gets no user and no messages."""
        page: HttpRequest = request._request
        response = render(page, "api_docs.html", {})
        response["Content-Security-Policy"] = CSP
        return response
