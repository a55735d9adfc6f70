"""A project that serves imgo's pages, and no admin."""

from django.urls import include, path

urlpatterns = [path("", include("push.urls"))]
