"""A site of somebody who uses imgo: users sign in, and their inbox shows what is pushed to them."""

from django.contrib.auth import get_user_model, login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import include, path


def enter(request: HttpRequest, name: str) -> HttpResponse:
    """Sign in as a user, who is made if there is none; nobody asks for a password here."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return redirect("inbox")


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("inbox")


def inbox(request: HttpRequest) -> HttpResponse:
    """The page with {% imgo %} on it."""
    return render(request, "app/inbox.html")


urlpatterns = [
    path("enter/<name>", enter),
    path("leave", leave),
    path("inbox", inbox, name="inbox"),
    path("", include("imgo_site.urls")),
]
