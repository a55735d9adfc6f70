"""Paths of clients over HTTP: Server-Sent Events, and their devices."""

from django.urls import path

from push.events.device_views import DevicesView
from push.events.views import PostedFrameView, StreamView

urlpatterns = [
    path("sub/devices", DevicesView.as_view()),
    path("sub/events", StreamView.as_view()),
    path("sub/events/<str:session>", PostedFrameView.as_view()),
]
