"""Signing in and out, and all of imgo's own paths."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

urlpatterns = [
    path("signin/", LoginView.as_view(), name="login"),
    path("signout/", LogoutView.as_view(next_page="login"), name="logout"),
    path("", include("imgo_site.urls")),
]
