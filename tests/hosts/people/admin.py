"""The project's page of the admin's log."""

from django.contrib import admin
from django.contrib.admin.models import LogEntry


@admin.register(LogEntry)
class OwnLogAdmin(admin.ModelAdmin):
    pass
