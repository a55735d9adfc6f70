"""The project's paths, some with names that imgo's have too."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def own(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the project's")


urlpatterns = [
    *(path(f"own/{name}", own, name=name) for name in ("dashboard", "demo", "docs", "schema")),
    path("push/", include("imgo_site.urls")),
]
