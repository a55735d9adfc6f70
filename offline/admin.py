"""Messages and what is pending, to look at."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from offline.models import Message, Pending


class _ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Looked at here, changed by pushing and delivering alone."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False


@admin.register(Message)
class MessageAdmin(_ReadOnly):
    """Accepted messages, newest first."""

    list_display = ("id", "audience", "room", "stored", "op", "by", "created_at", "expires_at")
    list_filter = ("audience",)
    ordering = ("-id",)
    exclude = ("body",)


@admin.register(Pending)
class PendingAdmin(_ReadOnly):
    """What is owed to whom."""

    list_display = ("key", "message")
    search_fields = ("key__exact",)
    ordering = ("-id",)
