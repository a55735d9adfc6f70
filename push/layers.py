"""Public path of the channel layers, for `CHANNEL_LAYERS` in a project's settings."""

from push.bus.layers import InProcessChannelLayer, PubSubChannelLayer

__all__ = ["InProcessChannelLayer", "PubSubChannelLayer"]
