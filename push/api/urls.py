"""Paths of the API. Keys and rooms are of type `path` because they may contain a slash."""

from django.urls import path

from push.api import devices, goim, legacy, rooms, v1
from push.api.health import HealthView, ReadyView
from push.api.metrics import MetricsView
from push.api.push_stream import StreamView

PROBES = [path("healthz", HealthView.as_view()), path("readyz", ReadyView.as_view())]

urlpatterns = [
    path("api/v1/pushes", v1.PushesView.as_view()),
    path("api/v1/pushes/stream", StreamView.as_view()),
    path("api/v1/pushes/<str:message_id>", v1.PushView.as_view()),
    path("api/v1/keys/<path:key>/sessions", v1.KeySessionsView.as_view()),
    path("api/v1/keys/<path:key>/devices", devices.DevicesView.as_view()),
    path("api/v1/keys/<path:key>", v1.KeyView.as_view()),
    path("api/v1/rooms", rooms.RoomsView.as_view()),
    path("api/v1/rooms/<path:room>/position", rooms.PositionView.as_view()),
    path("api/v1/rooms/<path:room>/messages", rooms.RoomMessagesView.as_view()),
    path("api/v1/rooms/<path:room>", rooms.RoomView.as_view()),
    path("api/v1/nodes", v1.NodesView.as_view()),
    path("api/v1/stats", v1.StatsView.as_view()),
    path("api/v1/tokens", v1.TokensView.as_view()),
    path("api/v1/tokens/<path:key>", v1.TokenView.as_view()),
    path("metrics", MetricsView.as_view()),
    path("1/push", legacy.PushView.as_view()),
    path("1/pushs", legacy.PushManyView.as_view()),
    path("1/push/room", legacy.PushRoomView.as_view()),
    path("1/push/all", legacy.PushAllView.as_view()),
    path("1/count", legacy.CountView.as_view()),
    path("1/server/del", legacy.DeleteServerView.as_view()),
    path("1/admin/token/new", legacy.NewTokenView.as_view()),
    path("1/msg/get", legacy.MessagesView.as_view()),
    path("goim/push/keys", goim.PushKeysView.as_view()),
    path("goim/push/mids", goim.PushMidsView.as_view()),
    path("goim/push/room", goim.PushRoomView.as_view()),
    path("goim/push/all", goim.PushAllView.as_view()),
    path("goim/online/top", goim.OnlineTopView.as_view()),
    path("goim/online/room", goim.OnlineRoomView.as_view()),
    path("goim/online/total", goim.OnlineTotalView.as_view()),
    path("goim/nodes/weighted", goim.NodesWeightedView.as_view()),
    path("goim/nodes/instances", goim.NodesInstancesView.as_view()),
]
