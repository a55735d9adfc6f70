"""URLs of the app: `path("imgo/", include("imgo_client.django.urls"))`."""

from __future__ import annotations

from django.urls import path

from imgo_client.django import receiving, views

app_name = "imgo_client"

urlpatterns = [
    path("token/", views.token, name="token"),
    path("webhook/", receiving.webhook, name="webhook"),
    path("hook/<name>/", receiving.hook, name="hook"),
    # imgo's settings may name them without the slash, and a POST is not redirected to the other.
    path("webhook", receiving.webhook),
    path("hook/<name>", receiving.hook),
]
