"""The accounts app."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Tokens, API keys, identities."""

    name = "accounts"
