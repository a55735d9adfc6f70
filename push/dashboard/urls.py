"""Paths of the dashboard. Keys and rooms are in the query because they may contain a slash."""

from django.urls import path

from push.dashboard import tail, views

urlpatterns = [
    path("", views.overview, name="dashboard"),
    path("data", views.data, name="dashboard-data"),
    path("keys", views.keys, name="dashboard-keys"),
    path("key", views.key, name="dashboard-key"),
    path("room", views.room, name="dashboard-room"),
    path("rooms", views.rooms, name="dashboard-rooms"),
    path("streams", views.streams, name="dashboard-streams"),
    path("tail", tail.tail, name="dashboard-tail"),
    path("tail/data", tail.tail_data, name="dashboard-tail-data"),
    path("act/<slug:name>", views.act, name="dashboard-act"),
    path("<path:rest>", views.nothing),
]
