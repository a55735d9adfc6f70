"""Tokens and API keys in the admin. A secret is shown once, when it is made."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest

from accounts.models import ApiKey, Token


@admin.register(Token)
class TokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Tokens by key; adding one for a key that has one replaces it."""

    list_display = ("key", "created_at", "expires_at")
    search_fields = ("key",)
    show_full_result_count = False

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        """Make the token's text when it is new, and show it this once."""
        if change:
            super().save_model(request, obj, form, change)
            return
        expires, rooms = obj.expires_at, obj.rooms
        row, text = Token.objects.issue(obj.key, rooms=rooms)
        Token.objects.filter(pk=row.pk).update(expires_at=expires)
        obj.pk = row.pk
        messages.warning(request, f"The token of {row.key}, shown this once: {text}")


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """API keys; revoke one by setting its time of revocation."""

    list_display = ("name", "hint", "scopes", "created_at", "revoked_at")
    search_fields = ("name",)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Make the key's text when it is new, and show it this once."""
        if change:
            super().save_model(request, obj, form, change)
            return
        row, text = ApiKey.objects.issue(obj.name, obj.scopes)
        obj.pk = row.pk
        messages.warning(request, f"The API key {row.name}, shown this once: {text}")
