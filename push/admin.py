"""Nodes in the admin."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from push.models import Node


@admin.register(Node)
class NodeAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Nodes that have run here; they write their rows themselves."""

    list_display = ("id", "name", "first_seen", "last_seen")
    readonly_fields = ("name", "first_seen", "last_seen")

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """A node announces itself."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """There is nothing to change."""
        return False
