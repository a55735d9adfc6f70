"""The push app's paths: API, health, demo, dashboard."""

from django.urls import include, path

from push.api.docs.views import DocsView, SchemaView
from push.api.urls import PROBES
from push.connect.views import NoUpgradeView
from push.demo_page import views

app_name = "imgo"
urlpatterns = [
    path("", views.demo, name="demo"),
    path("demo/push", views.demo_push, name="demo-push"),
    path("favicon.ico", views.favicon),
    *PROBES,
    path("sub", NoUpgradeView.as_view()),
    path("sub/", NoUpgradeView.as_view()),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path("api/docs/", DocsView.as_view(), name="docs"),
    path("dashboard/", include("push.dashboard.urls")),
    path("", include("push.api.urls")),
    path("", include("push.events.urls")),
]
