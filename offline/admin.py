"""Admin of messages, pending rows, events and the outbox. Its only change is `retry`."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from accounts.callers import with_caller_names
from imgo_site.admin_tables import ReadOnlyAdmin
from imgo_site.times import utc_text
from offline import history
from offline.models import Event, KeyDevice, Message, Outbox, Pending

KEYS_SHOWN = 200  # of a message's keys


class _OfMessageAdmin(ReadOnlyAdmin):
    """Base for tables whose rows belong to a message."""

    by_key_or_message: ClassVar = {
        "key": ("-key", "-message_id", "-pk"),
        "message": ("message_id", "key", "-pk"),
    }

    @admin.display(description="message")
    def message_link(self, row: Any) -> SafeString:
        """Return a link to the message of a row, without a query of the message."""
        url = reverse("admin:offline_message_change", args=[row.message_id])
        return format_html('<a href="{}">{}</a>', url, row.message_id)


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """Admin of accepted messages, newest first, each with its record."""

    list_display = (
        "id", "audience", "room", "recipients", "stored", "op", "caller", "created_at",
        "expires_at",
    )  # fmt: skip
    list_display_links = ("id",)
    list_title = "Messages"
    search_exact: ClassVar = {"id": ()}
    search_help_text = "A message's id. For the messages of a key, search pending and events."
    exclude = ("body", "keys", "is_json")
    readonly_fields = ("body_format", "fan_out", "what_became_of_it")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Message]":
        """Return rows without bodies and keys: a list shows neither, and both may be large."""
        rows: QuerySet[Message] = super().get_queryset(request)
        return with_caller_names(rows.defer("body", "keys"))

    @admin.display(description="by")
    def caller(self, message: Message) -> str:
        """Return the caller, with the name of its API key."""
        name: str | None = message.caller_name  # type: ignore[attr-defined]  # of `get_queryset`
        return f"{name} ({message.by})" if name else message.by

    @admin.display(description="body format")
    def body_format(self, message: Message) -> str:
        """Return the format of the body, which is on no page."""
        return "JSON" if message.is_json else "bytes"

    @admin.display(description="fan-out")
    def fan_out(self, message: Message) -> str:
        """Return the state of the fan-out: done, waiting, or parked with its error."""
        record = history.fan_out(message)
        return f"{record['state']} {record.get('error', '')}".strip()

    @admin.display(description="what became of it")
    def what_became_of_it(self, message: Message) -> SafeString:
        """Return a table of the message's keys and their history, or a text for other audiences."""
        recorded = history.find(message.pk)
        keys: list[str] = message.keys or []
        if recorded is None or not keys:
            text = "Only pushes to keys are recorded by key."
            if recorded is not None and message.audience != Message.Audience.KEYS:
                reach = history.reach_of(recorded)
                text = f"Sessions it was written to: {reach['sessions']}, on {reach['nodes']} node"
                text += "." if reach["nodes"] == 1 else "s."
            return format_html("<p>{}</p>", text)
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (
                (
                    row.key,
                    row.words,
                    utc_text(row.at) if row.at else "",
                    row.session,
                    ", ".join(f"{session} at {utc_text(at)}" for session, at in row.sent),
                )
                for row in history.deliveries(recorded, keys[:KEYS_SHOWN])
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
class PendingAdmin(_OfMessageAdmin):
    """Admin of pending rows."""

    list_title = "Pending messages"
    list_display = ("key", "device", "message_link", "expires_at")
    search_exact = _OfMessageAdmin.by_key_or_message
    search_help_text = "A key, or a message's id."
    fields = readonly_fields = list_display


@admin.register(KeyDevice)
class KeyDeviceAdmin(ReadOnlyAdmin):
    """Admin of the devices of keys with the scope `each`."""

    list_title = "Devices of keys"
    list_display = ("key", "name", "created_at", "seen_at")
    search_exact: ClassVar = {"key": ("-key", "-name", "-pk")}
    search_help_text = "A key."
    fields = readonly_fields = list_display


@admin.register(Event)
class EventAdmin(_OfMessageAdmin):
    """Admin of the events of stored messages, for each key."""

    list_title = "Events of stored messages"
    list_display = ("key", "device", "message_link", "kind", "session", "reason", "at")
    # Only by message: no index has the keys of a message in order.
    search_exact: ClassVar = {**_OfMessageAdmin.by_key_or_message, "message": ("message_id",)}
    search_help_text = "A key, or a message's id."
    fields = readonly_fields = list_display


class _ParkedFilter(admin.SimpleListFilter):
    """Filter by state. Both choices are fast: parked rows are few, waiting rows have an index."""

    title = "state"
    parameter_name = "parked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """Return the choices of the filter: (value in the URL, label)."""
        return [("yes", "parked"), ("no", "waiting")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Outbox]") -> "QuerySet[Outbox]":  # noqa: ARG002
        """Return the rows of the choice."""
        if self.value() is None:
            return queryset
        return queryset.filter(parked_at__isnull=self.value() == "no")


@admin.register(Outbox)
class OutboxAdmin(_OfMessageAdmin):
    """Admin of messages that are not fanned out yet, and of parked ones."""

    list_title = "Messages in the outbox"
    list_display = ("message_link", "partition", "created_at", "attempts", "parked_at", "error")
    list_filter = (_ParkedFilter,)
    ordering = ("pk",)
    fields = readonly_fields = list_display
    actions = ("retry",)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may use `retry`, the only change that is possible here."""
        return request.user.has_perm("offline.change_outbox")

    @admin.action(description="Retry the selected parked messages", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: "QuerySet[Outbox]") -> None:
        """Return parked messages to the outbox; a node's sweep sends them within seconds."""
        parked = queryset.filter(parked_at__isnull=False)
        rows = list(parked)
        with transaction.atomic():
            for row in rows:
                self.log_change(request, row, "Put back, to be tried again.")
            parked.update(parked_at=None, attempts=0, error="")
        done = "1 parked message is" if len(rows) == 1 else f"{len(rows)} parked messages are"
        self.message_user(request, f"{done} retried.")
