"""The app `orders`."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Connects the receivers at start."""

    name = "orders"

    def ready(self) -> None:
        """Import the receivers."""
        from orders import receivers  # noqa: F401
