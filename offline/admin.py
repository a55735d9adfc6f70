"""Messages, what is pending, and what became of them, to look at."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from offline import records
from offline.models import Event, Message, Outbox, Pending

KEYS_SHOWN = 200  # of a message's keys


class _ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Looked at here, changed by pushing and delivering alone."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False


@admin.register(Message)
class MessageAdmin(_ReadOnly):
    """Accepted messages, newest first, each with its record."""

    list_display = ("id", "audience", "room", "stored", "op", "by", "created_at", "expires_at")
    list_filter = ("audience",)
    search_fields = ("=id",)
    ordering = ("-id",)
    exclude = ("body", "keys")
    readonly_fields = ("fan_out", "what_became_of_it")

    @admin.display(description="fan-out")
    def fan_out(self, message: Message) -> str:
        """Done, waiting, or parked with its error."""
        found = records.fan_out(message)
        return f"{found['state']} {found.get('error', '')}".strip()

    @admin.display(description="what became of it")
    def what_became_of_it(self, message: Message) -> SafeString:
        """A table of its keys."""
        recorded = records.find(message.pk)
        keys: list[str] = message.keys or []
        if recorded is None or not keys:
            return format_html("<p>{}</p>", "Only pushes to keys are recorded by key.")
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (
                (
                    row.key,
                    " ".join(filter(None, (row.state, row.how, row.reason))),
                    row.at,
                    row.session,
                    ", ".join(f"{session} {at:%H:%M:%S}" for session, at in row.sent),
                )
                for row in records.deliveries(recorded, keys[:KEYS_SHOWN])
            ),
        )
        more = f"and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
        return format_html(
            "<table><thead><tr><th>key</th><th>state</th><th>at</th><th>session</th>"
            "<th>sent to</th></tr></thead><tbody>{}</tbody></table>{}",
            rows,
            more,
        )


@admin.register(Pending)
class PendingAdmin(_ReadOnly):
    """What is owed to whom."""

    list_display = ("key", "message", "expires_at")
    list_select_related = ("message",)
    search_fields = ("key__exact",)
    ordering = ("-id",)


@admin.register(Event)
class EventAdmin(_ReadOnly):
    """What happened to stored messages on their way to each key."""

    list_display = ("key", "message_id", "kind", "session", "reason", "at")
    search_fields = ("key__exact", "=message__id")
    ordering = ("-id",)
    raw_id_fields = ("message",)


@admin.register(Outbox)
class OutboxAdmin(_ReadOnly):
    """What is not fanned out yet, and what cannot be."""

    list_display = ("message_id", "partition", "created_at", "attempts", "parked_at", "error")
    list_filter = (("parked_at", admin.EmptyFieldListFilter),)
    ordering = ("id",)
