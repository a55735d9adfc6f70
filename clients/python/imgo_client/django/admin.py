"""Admin list of the outbox: waiting and parked pushes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from imgo_client.django.models import Outbox, OutboxQuerySet
from imgo_client.django.waking import wake

if TYPE_CHECKING:
    OutboxModelAdmin = admin.ModelAdmin[Outbox]
else:
    OutboxModelAdmin = admin.ModelAdmin

BODY_SHOWN = 2000  # characters


class ParkedFilter(admin.SimpleListFilter):
    """Filter by whether the server has refused the push."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002, D102
        return [("waiting", "waiting"), ("parked", "parked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:  # noqa: ARG002, D102
        if self.value() is None:
            return queryset
        return queryset.filter(parked_at__isnull=self.value() == "waiting")


@admin.register(Outbox)
class OutboxAdmin(OutboxModelAdmin):
    """Pushes can be deleted, and parked ones sent again; nobody edits them."""

    list_display = ("push_id", "target", "name", "created_at", "attempts", "parked_at", "error")
    list_filter = (ParkedFilter, "target")
    search_fields = ("push_id", "name")
    fields = (
        *("push_id", "target", "name", "keys", "body_text", "options", "lane"),
        *("created_at", "attempts", "error", "parked_at"),
    )
    readonly_fields = fields
    actions = ("send_again",)
    show_full_result_count = False  # a backlog may be long

    @admin.display(description="body")
    def body_text(self, row: Outbox) -> str:
        """Return the start of the body."""
        return bytes(row.body).decode(errors="replace")[:BODY_SHOWN]

    @admin.action(description="Send parked pushes again", permissions=["delete"])
    def send_again(self, request: HttpRequest, queryset: OutboxQuerySet) -> None:
        """Send the parked ones of these again."""
        count = queryset.send_again()
        wake()
        self.message_user(request, f"{count} pushes will be sent again.", messages.SUCCESS)

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002, D102
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002, D102
        return False
