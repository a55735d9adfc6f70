"""Admin of nodes, batches of webhooks and tokens. A revoked token's sessions are closed."""

from contextlib import suppress
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.admin import TokenAdmin as BaseTokenAdmin
from accounts.models import Token
from imgo_site.admin_tables import ReadOnlyAdmin
from imgo_site.errors import NotFound
from push.devices.addresses import shortened
from push.models import Device, Node, WebhookBatch
from push.operations import revoke_token
from push.webhooks.endpoints import room_of


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    """Nodes that have run here; they write their rows themselves. The live ones: dashboard."""

    list_title = "Nodes that have run here"
    list_display = ("id", "name", "first_seen", "last_seen")
    search_exact: ClassVar = {"id": (), "name": ()}
    search_help_text = "A node's number, or its whole name."


@admin.register(WebhookBatch)
class WebhookBatchAdmin(ReadOnlyAdmin):
    """Batches of webhooks that are not delivered. `manage.py webhooks retry` unparks them."""

    list_display = ("id", "endpoint", "size", "attempts", "error", "created_at", "parked_at")
    search_exact: ClassVar = {"id": ()}
    search_help_text = "A batch's number."
    exclude = ("body", "keys")
    readonly_fields = ("keys_and_rooms",)

    @admin.display(description="keys and rooms")
    def keys_and_rooms(self, batch: WebhookBatch) -> str:
        """Return whose events these are: the keys, and the rooms as such."""
        rooms = {name: room_of(name) for name in batch.keys}
        return ", ".join(name if room is None else f"room {room}" for name, room in rooms.items())

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WebhookBatch]":
        """Return rows without bodies and keys, which may be large and are in no list."""
        rows: QuerySet[WebhookBatch] = super().get_queryset(request)
        return rows.defer("body", "keys")


@admin.register(Device)
class DeviceAdmin(ReadOnlyAdmin):
    """Devices that get notifications. Their addresses are secrets, and shortened."""

    list_display = ("id", "key", "provider", "short_address", "name", "last_seen", "failures")
    fields = (
        "key", "provider", "short_address", "name", "created_at", "last_seen", "failures",
    )  # fmt: skip
    readonly_fields = fields
    search_exact: ClassVar = {"id": (), "key": ()}
    search_help_text = "A device's number, or a whole key."

    @admin.display(description="address")
    def short_address(self, row: Device) -> str:
        """Return the end of the address."""
        return shortened(row.provider, row.address)


@admin.register(Token)
class TokenAdmin(BaseTokenAdmin):
    """Deleting a token revokes it: its key's sessions are closed at once."""

    actions = ("revoke",)

    @admin.action(
        description="Revoke the selected tokens, and close their sessions", permissions=["delete"]
    )
    def revoke(self, request: HttpRequest, queryset: "QuerySet[Token]") -> None:
        """What was revoked meanwhile is left out."""
        count = 0
        for key in list(queryset.values_list("key", flat=True)):
            row = Token.objects.filter(key=key)
            with suppress(NotFound), transaction.atomic():
                self.log_deletions(request, row)
                revoke_token(key)
                count += 1
        done = "1 token is revoked." if count == 1 else f"{count} tokens are revoked."
        self.message_user(request, done, messages.SUCCESS)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions without Django's deletion, which would leave the sessions open."""
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def delete_model(self, request: HttpRequest, obj: Token) -> None:  # noqa: ARG002
        """Revoke the token and close its sessions."""
        revoke_token(obj.key)
