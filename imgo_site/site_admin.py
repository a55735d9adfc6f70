"""Admin pages for Django's own models, for a site that uses `imgo_site.urls`.

They belong to the site and not to an app. So a project with pages of its own keeps these, and a
project with a custom user model does not get imgo's.
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

from imgo_site.admin_tables import CarefulAdmin, ReadOnlyAdmin


class UserAdmin(CarefulAdmin, BaseUserAdmin):  # type: ignore[type-arg]
    """Page of the users who sign in to the admin and the dashboard."""


class GroupAdmin(CarefulAdmin, BaseGroupAdmin):
    """Page of groups, which give permissions to many users."""


class LogEntryAdmin(ReadOnlyAdmin):
    """Page of all users' actions in the admin and the dashboard.

    The admin's first page shows each user only their own.
    """

    list_title = "Log entries of all users"
    list_display = ("action_time", "user", "action_flag", "what", "content_type", "change")
    list_display_links = None
    list_select_related = ("user", "content_type")
    fields = readonly_fields = list_display

    @admin.display(description="object")
    def what(self, entry: LogEntry) -> SafeString | str:
        """Return the object's name, as a link if the object exists and has a page."""
        url = None if entry.is_deletion() else entry.get_admin_url()
        return (
            format_html('<a href="{}">{}</a>', url, entry.object_repr) if url else entry.object_repr
        )

    @admin.display(description="change")
    def change(self, entry: LogEntry) -> str:
        """Return the text of the change."""
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
