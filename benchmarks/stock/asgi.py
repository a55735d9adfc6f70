"""The stock baseline's ASGI application."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.stock.settings")
django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from benchmarks.stock.consumers import RoomConsumer  # noqa: E402

application = ProtocolTypeRouter(
    {"websocket": URLRouter([path("sub", RoomConsumer.as_asgi())])}  # type: ignore[arg-type,list-item]
)
