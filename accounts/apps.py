"""The accounts app."""

from imgo_site.name_collisions import NamedApp


class AccountsConfig(NamedApp):
    """Tokens, API keys, identities."""

    default = True
    name = "accounts"
