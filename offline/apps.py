"""The offline app."""

from imgo_site.name_collisions import NamedApp


class OfflineConfig(NamedApp):
    """Messages and pending deliveries."""

    default = True
    name = "offline"
