"""The push app's paths: API, health, demo, dashboard."""

from django.urls import include, path

from push import views

urlpatterns = [
    path("", views.demo, name="demo"),
    path("demo/push", views.demo_push, name="demo-push"),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("dashboard/", include("push.dashboard.urls")),
    path("", include("push.api.urls")),
]
