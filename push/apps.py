"""The push app."""

from django.apps import AppConfig


class PushConfig(AppConfig):
    """Sessions, pushes and their way from one to the other."""

    name = "push"

    def ready(self) -> None:
        """Register the system checks."""
        from push import checks  # noqa: F401
