"""Pages of the admin about Django's own models, for a site that uses `imgo_site.urls`.

They belong to the site and not to an app: a project that has users or a log of its own keeps its
pages, and a custom user model needs none of ours.
"""

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.utils.html import format_html
from django.utils.safestring import SafeString

from imgo_site.tables import CarefulAdmin, ReadOnlyAdmin


class UserAdmin(CarefulAdmin, BaseUserAdmin):  # type: ignore[type-arg]
    """Who signs in to the admin and the dashboard."""


class GroupAdmin(CarefulAdmin, BaseGroupAdmin):
    """What many users may do."""


class LogEntryAdmin(ReadOnlyAdmin):
    """What everybody did, here and in the dashboard; the admin's first page shows one's own."""

    list_display = ("action_time", "user", "action_flag", "what", "content_type", "change")
    list_display_links = None
    list_select_related = ("user", "content_type")
    fields = readonly_fields = list_display

    @admin.display(description="object")
    def what(self, entry: LogEntry) -> SafeString | str:
        """Its name, as a link where it has a page and is there still."""
        url = None if entry.is_deletion() else entry.get_admin_url()
        return (
            format_html('<a href="{}">{}</a>', url, entry.object_repr) if url else entry.object_repr
        )

    @admin.display(description="change")
    def change(self, entry: LogEntry) -> str:
        """What was done with it."""
        return entry.get_change_message()


def register() -> None:
    """Register these pages, except where the project has registered its own."""
    _replace(User, BaseUserAdmin, UserAdmin)
    _replace(Group, BaseGroupAdmin, GroupAdmin)
    if not admin.site.is_registered(LogEntry):
        admin.site.register(LogEntry, LogEntryAdmin)


def _replace(model: type[Model], theirs: type[Any], ours: type[CarefulAdmin]) -> None:
    if admin.site.is_registered(model) and type(admin.site.get_model_admin(model)) is theirs:
        admin.site.unregister(model)
        admin.site.register(model, ours)
