"""Paths of Server-Sent Events."""

from django.urls import path

from push.events.views import PostedFrameView, StreamView

urlpatterns = [
    path("sub/events", StreamView.as_view()),
    path("sub/events/<str:session>", PostedFrameView.as_view()),
]
