"""The offline app."""

from django.apps import AppConfig


class OfflineConfig(AppConfig):
    """Messages and pending deliveries."""

    name = "offline"
