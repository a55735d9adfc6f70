"""The shop's pages."""

from django.contrib import admin
from django.contrib.auth import login
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import include, path

from shop.models import Customer

POLICY = (
    "default-src 'none'; script-src 'self' {imgo}; connect-src 'self' {imgo} {socket};"
    " frame-ancestors 'none'"
)


def page(request):
    from imgo_client.django.conf import options

    response = render(request, "page.html")
    socket = options().socket_url.rpartition("/")[0]
    response["Content-Security-Policy"] = POLICY.format(imgo=options().URL, socket=socket)
    return response


def enter(request, code):
    login(request, Customer.objects.get(code=code))
    return HttpResponse("welcome")


urlpatterns = [
    path("", page),
    path("favicon.ico", lambda _: HttpResponse(status=204)),  # browsers ask for it
    path("enter/<code>", enter),
    path("admin/", admin.site.urls),
    path("imgo/", include("imgo_client.django.urls")),
]
