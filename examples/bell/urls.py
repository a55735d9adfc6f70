"""The bell's paths, a page to try it on, and those that all examples have."""

from django.urls import include, path

from examples.bell import views

urlpatterns = [
    path("home/", views.home, name="home"),
    path("bell/", views.bell, name="bell"),
    path("bell/read", views.read, name="bell-read"),
    path("", include("examples.shared.urls")),
]
