"""Thread of the sender of notifications to devices."""

from push.devices.addresses import configured
from push.devices.sender import NotificationSender
from push.node.own_thread import OwnThread

END_TIME = 1.5  # seconds that a stopping sender may take to store outcomes


class DeviceThread(OwnThread):
    """The thread of one node. Without a provider it does nothing."""

    def __init__(self) -> None:
        super().__init__("devices", NotificationSender, END_TIME)

    def start(self) -> None:
        """Start the thread, if a provider is configured."""
        if configured():
            super().start()
