"""Admin of tokens and API keys. A secret is shown only once, when it is created."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import CharField, JSONField, QuerySet
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import SCOPES, ApiKey, Token
from imgo_site.admin_tables import LargeTableAdmin


class RoomsField(forms.JSONField):
    """JSON field that can show any invalid input again. Django's field parses it for that."""

    def to_python(self, value: Any) -> Any:
        """Return the parsed value. Raises `ValidationError`, also for JSON nested too deeply."""
        try:
            return super().to_python(value)
        except RecursionError:
            raise ValidationError(self.error_messages["invalid"]) from None

    def bound_data(self, data: Any, initial: Any) -> Any:  # noqa: ARG002
        """Return the input as it was typed."""
        return InvalidJSONInput(data or "")


class TokenAdmin(LargeTableAdmin):
    """Admin of tokens, by key. `push.admin` registers it and adds the closing of sessions."""

    list_display = ("key", "room_list", "join_list", "created_at", "expires_at")
    formfield_overrides: ClassVar = {
        JSONField: {"form_class": RoomsField},
        CharField: {"strip": False},  # blanks belong to a key
    }
    search_exact: ClassVar = {"key": ()}
    search_help_text = "The whole key."
    help_texts: ClassVar = {
        "rooms": 'JSON list of rooms that the key may join, such as ["lobby", "team-*"]. '
        "Empty or null: the setting ROOMS_OPEN decides.",
        "join": 'JSON list of rooms that its sessions are in from the start, such as ["lobby"].',
        "info": 'JSON object that others in a room with presence see, such as {"name": "Ann"}.',
        "expires_at": "Empty: the token never expires.",
    }

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the form's field, with the help text of this page."""
        if db_field.name in self.help_texts:
            kwargs["help_text"] = self.help_texts[db_field.name]
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(description="rooms")
    def room_list(self, token: Token) -> str:
        """Return the rooms that the token's sessions may join."""
        return "default" if token.rooms is None else ", ".join(token.rooms) or "none"

    @admin.display(description="joins")
    def join_list(self, token: Token) -> str:
        """Return the rooms that the token's sessions join when they open."""
        return ", ".join(token.join)

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:
        """Save the token. A new one gets a text, which is shown only this once."""
        if change:
            super().save_model(request, obj, form, change)
            return
        expires, rooms = obj.expires_at, obj.rooms
        row, text = Token.objects.issue(obj.key, rooms=rooms, join=obj.join, info=obj.info)
        Token.objects.filter(pk=row.pk).update(expires_at=expires)
        obj.pk = row.pk
        messages.warning(request, f"The token of {row.key}, shown this once: {text}")


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Form of an API key, with its scopes as checkboxes."""

    scopes = forms.MultipleChoiceField(
        choices=[(name, f"{name}: {text}") for name, text in SCOPES.items()],
        widget=forms.CheckboxSelectMultiple,
        required=False,
    )

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "revoked_at")


@admin.register(ApiKey)
class ApiKeyAdmin(LargeTableAdmin):
    """Admin of API keys. The database has only a hash of each, and its last four characters."""

    form = ApiKeyForm
    list_display = ("name", "hint", "scope_list", "created_at", "revoked_at")
    search_exact: ClassVar = {"name": ("name", "-pk")}
    search_help_text = "The whole name."
    readonly_fields = ("hint", "created_at")
    actions = ("revoke",)

    @admin.display(description="scopes")
    def scope_list(self, row: ApiKey) -> str:
        """Return the scopes of the API key."""
        return ", ".join(row.scopes) or "none"

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:  # noqa: ARG002
        """Return the fields of the form; for a new API key only its name and scopes."""
        return (
            ("name", "scopes")
            if obj is None
            else ("name", "scopes", "hint", "created_at", "revoked_at")
        )

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Save the API key. A new one gets a text, which is shown only this once."""
        if change:
            super().save_model(request, obj, form, change)
            return
        row, text = ApiKey.objects.issue(obj.name, obj.scopes)
        obj.pk = row.pk
        messages.warning(request, f"The API key {row.name}, shown this once: {text}")

    @admin.action(description="Revoke the selected API keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> None:
        """Revoke the selected API keys, and log each."""
        rows = list(queryset.filter(revoked_at=None))
        for row in rows:
            row.revoked_at = timezone.now()
            row.save(update_fields=["revoked_at"])
            self.log_change(request, row, "Revoked.")
        is_single = len(rows) == 1
        done = "1 API key is revoked." if is_single else f"{len(rows)} API keys are revoked."
        self.message_user(request, done)
