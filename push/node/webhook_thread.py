"""Thread of the sender of webhooks."""

from imgo_site.conf import conf
from push.node.own_thread import OwnThread
from push.webhooks.sender import Sender

END_TIME = 1.5  # seconds that a stopping sender may take to store results and end its lease


class WebhookThread(OwnThread):
    """The thread of one node. Without `WEBHOOKS` it does nothing."""

    def __init__(self) -> None:
        super().__init__("webhooks", Sender, END_TIME)

    def start(self) -> None:
        """Start the thread, if there are endpoints."""
        if conf.WEBHOOKS:
            super().start()
