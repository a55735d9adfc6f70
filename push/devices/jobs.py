"""Values of one attempt to send or close a notification: what is sent, and what came of it."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed notification, or with `closes` what closes it on its device.

    `attempt`: 1 for the first one. `content`: title, body, url, icon, tag and data, without those
    that are empty. `ttl`: seconds until the message expires, at least 1.
    """

    pk: int
    attempt: int
    message_id: int
    key: str
    device_id: int
    provider: str
    address: str
    content: dict[str, Any]
    ttl: int
    closes: bool = False


class NoAnswer(Exception):
    """A provider has not answered a request. `reason`: a word for the record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Outcome(Enum):
    """What follows from a provider's answer."""

    SENT = "sent"  # the provider has taken it
    GONE = "gone"  # the device does not exist any more
    REJECTED = "rejected"  # it is of no use to send it again
    RETRY = "retry"  # it is sent again later


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one attempt.

    `reason`: why it failed, for the record; "" for success. `provider_id`: the provider's name of
    the notification. `retry_after`: seconds that the provider asks to wait, 0 for none.
    `pauses`: whether the whole provider is to wait so long, not only this notification.
    `gone_at`: Unix time at which the device was gone; None: now.
    """

    outcome: Outcome
    reason: str = ""
    provider_id: str = ""
    retry_after: float = 0.0
    pauses: bool = False
    gone_at: float | None = None
