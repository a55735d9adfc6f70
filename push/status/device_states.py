"""Sentences about the notifications of a message, for `explain`."""

from collections.abc import Iterator

from imgo_site.times import utc_text
from offline.history import Delivery, Notified, schedule_of
from offline.models import Message
from push.devices.addresses import configured
from push.devices.queue import GIVEN_UP
from push.devices.tables import Device, Notice, Notification

REASONS = {
    GIVEN_UP: "it had not taken it when it was given up",
    "host_not_allowed": "its host is not in WEBPUSH_HOSTS any more",
    "private_address": "its host has a private address, which the server does not call",
}


def sentences(key: str, message: Message, delivery: Delivery) -> Iterator[str]:
    """Yield what became of the notification of a message, for the devices of one key."""
    due_push = schedule_of(message)
    notice = Notice.objects.filter(pk=due_push.pk if due_push else message.pk).first()
    for notified in delivery.notified:
        at = utc_text(notified.at, "milliseconds")
        if not notified.reason:
            name = f" as {notified.provider_id}" if notified.provider_id else ""
            yield (
                f"Its notification was taken by the provider of device {notified.device} at "
                f"{at}{name}. Whether the device has shown it is not known."
            )
        else:
            reason = REASONS.get(notified.reason, f"its provider answered {notified.reason}")
            yield f"Its notification to device {notified.device} failed at {at}: {reason}."
    yield from map(_closing, delivery.closed)
    if notice is not None:
        yield from _unsent(key, message, notice, is_pending=delivery.state == "pending")


def _closing(closed: Notified) -> str:
    """Return what became of closing a notification on one device."""
    at = utc_text(closed.at, "milliseconds")
    if closed.reason:
        reason = REASONS.get(closed.reason, f"its provider answered {closed.reason}")
        return f"Its notification could not be closed on device {closed.device} at {at}: {reason}."
    return (
        f"The provider of device {closed.device} took what closes its notification at {at}. "
        "Whether the app has closed it is not known."
    )


def _unsent(key: str, message: Message, notice: Notice, *, is_pending: bool) -> Iterator[str]:
    """Yield what keeps the notification from the devices that have not got it."""
    states = Notification.State
    rows = Notification.objects.filter(message_id=message.pk, key=key)
    for row in rows.filter(state__in=(states.WAITING, states.CLOSING)).order_by("pk"):
        verb = "closed" if row.state == states.CLOSING else "sent"
        yield (
            f"Its notification to device {row.device_id} ({row.provider}) is {verb} at "
            f"{utc_text(row.next_at, 'milliseconds')} at the earliest, after {row.attempts} "
            "attempt(s)."
        )
    if not is_pending:
        return
    if not Device.objects.filter(key=key, provider__in=configured()).exists():
        yield "The key has no device of a provider that is configured, so none is notified."
    elif notice.expanded_at is None:
        yield f"Its devices are notified at {utc_text(notice.due_at, 'milliseconds')}."
