"""Paths of Server-Sent Events."""

from django.urls import path

from push.events.views import StreamView, UpstreamView

urlpatterns = [
    path("sub/events", StreamView.as_view()),
    path("sub/events/<str:session>", UpstreamView.as_view()),
]
