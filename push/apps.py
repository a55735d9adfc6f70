"""The push app."""

from imgo_site.collisions import NamedApp


class PushConfig(NamedApp):
    """Sessions, pushes and their way from one to the other."""

    default = True
    name = "push"

    def ready(self) -> None:
        """Register the system checks."""
        from push import checks  # noqa: F401
