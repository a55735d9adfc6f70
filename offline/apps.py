"""The offline app."""

from imgo_site.collisions import NamedApp


class OfflineConfig(NamedApp):
    """Messages and pending deliveries."""

    default = True
    name = "offline"
