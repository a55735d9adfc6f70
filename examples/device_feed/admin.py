"""What devices measure, in the admin."""

from django.contrib import admin

from examples.device_feed.models import Reading


@admin.register(Reading)
class ReadingAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The newest first."""

    list_display = ["device", "at", "celsius"]
    ordering = ["-at"]
