"""The chat's paths, and those that all examples have."""

from django.urls import include, path

from examples.chat import views

urlpatterns = [
    path("chat/", views.chat, name="chat"),
    path("", include("examples.shared.urls")),
]
