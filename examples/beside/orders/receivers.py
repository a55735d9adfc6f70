"""What imgo reports through its webhook."""

from typing import Any

from django.dispatch import receiver

from imgo_client.django.signals import message_received
from orders.models import Notification


@receiver(message_received)
def mark_read(data: dict[str, Any], **_: Any) -> None:
    """A page has sent `{"read": <id>}`: mark this notification as read, if it is the sender's.

    The same event may come twice. If this function raises, imgo sends the event again.
    """
    match data:
        case {"key": key, "body": {"read": int(number)}}:
            found = Notification.objects.filter(pk=number).first()
            if found and str(found.user_id) == key:
                found.is_read = True
                found.save(update_fields=["is_read"])
