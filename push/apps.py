"""The push app."""

from imgo_site.name_collisions import NamedApp


class PushConfig(NamedApp):
    """Sessions, pushes and their way from one to the other."""

    default = True
    name = "push"

    def ready(self) -> None:
        """Register the system checks, and what puts this process into the list of processes."""
        from push import checks  # noqa: F401
        from push.node import process_list  # noqa: F401
