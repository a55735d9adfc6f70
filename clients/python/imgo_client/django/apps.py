"""App configuration."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register


class ImgoClientConfig(AppConfig):
    """The app that `INSTALLED_APPS` names as `imgo_client.django`."""

    name = "imgo_client.django"
    label = "imgo_client"
    verbose_name = "imgo"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from imgo_client.django import checks

        register(checks.check_options)
        register(checks.check_databases)
        register(checks.check_urls, Tags.urls)
