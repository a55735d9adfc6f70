"""Tables of devices, of pushes that notify, and of notifications that are sent or closed.

`Notice` is one row a push, written with the push. When it is due, it becomes a `Notification` for
each device of each key that the push is still pending for. So a push without `notify` costs
nothing here, and a push to many keys writes one row until it is due.
"""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

NAME_MAX = 100  # characters of a device's name


class ProviderName(models.TextChoices):
    """Service that takes notifications to devices."""

    WEBPUSH = "webpush", "Web Push"
    APNS = "apns", "APNs"
    FCM = "fcm", "FCM"


# Providers that can close a shown notification. Browsers show a notification of their own for a
# message of Web Push that shows none, or withdraw the permission.
CLOSING_PROVIDERS = (str(ProviderName.APNS), str(ProviderName.FCM))


class Device(models.Model):
    """Browser or phone of a key, with the address at which its provider reaches it.

    The address is a secret: who has it may send to the device. It is never logged.
    """

    key = models.CharField(max_length=255, db_index=True)
    provider = models.CharField(max_length=8, choices=ProviderName)
    address = models.TextField(help_text="Token, or the JSON of a Web Push subscription. Secret.")
    digest = models.CharField(
        max_length=64, unique=True, help_text="SHA-256 of provider and address, in hex."
    )
    name = models.CharField(max_length=NAME_MAX, blank=True, help_text="Name given by the app.")
    created_at = models.DateTimeField(default=timezone.now)
    last_seen = models.DateTimeField(default=timezone.now, help_text="Its latest registration.")
    failures = models.IntegerField(
        default=0, help_text="Notifications since the last success that the provider refused."
    )

    class Meta:
        app_label = "push"

    def __str__(self) -> str:
        return f"{self.provider} device {self.pk} of {self.key}"


class Notice(models.Model):
    """Push that notifies the devices of the keys that have not settled it when it is due.

    `push_id`: the id that was answered, which for a scheduled push is not the message's.
    """

    push_id = models.BigIntegerField(primary_key=True)
    content = models.TextField(help_text="JSON with title, body, url, icon, tag and data.")
    due_at = models.DateTimeField()
    after_key = models.CharField(
        max_length=255, blank=True, help_text="Its keys up to this one have their notifications."
    )
    expanded_at = models.DateTimeField(null=True, help_text="When all had them.")

    class Meta:
        app_label = "push"
        indexes: ClassVar = [
            models.Index(fields=["due_at"], name="notice_due", condition=Q(expanded_at=None)),
            models.Index(
                fields=["expanded_at"],
                name="notice_expanded",
                condition=Q(expanded_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"notice of push {self.push_id}"


SHOWN = (1, 2)  # the states of notifications that devices show: `State.SHOWN` and `WATCHED`


class Notification(models.Model):
    """Message that must be sent to one device, or that the device shows.

    Without a way to close it, the row ends with its outcome. Else it ends when the notification was
    closed, or when the message expires: `next_at` is that time while the device shows it.

    A claim moves `next_at` to the end of its lease. Without an outcome by then, another claim
    sends the notification, or what closes it, again.
    """

    class State(models.IntegerChoices):
        """Step of a notification. `push.devices.closings` explains the last three."""

        WAITING = 0, "to be sent"
        SHOWN = 1, "taken by its provider"
        WATCHED = 2, "taken by its provider, and later events are searched for its message's end"
        CLOSING = 3, "to be closed"

    notice = models.ForeignKey(Notice, on_delete=models.CASCADE)
    message_id = models.BigIntegerField()
    key = models.CharField(max_length=255)
    device = models.ForeignKey(Device, on_delete=models.CASCADE)
    provider = models.CharField(max_length=8)
    next_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="When the message expires.")
    attempts = models.IntegerField(default=0, help_text="Of the step that is next.")
    state = models.SmallIntegerField(choices=State, default=0, db_default=0)

    class Meta:
        app_label = "push"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["message_id", "device"], name="notification_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["provider", "next_at"], name="notification_next"),
            models.Index(
                fields=["message_id", "key"],
                name="notification_shown",
                condition=Q(state__in=SHOWN),
            ),
            models.Index(fields=["id"], name="notification_unwatched", condition=Q(state=1)),
        ]

    def __str__(self) -> str:
        return f"notification of message {self.message_id} to device {self.device_id}"


class ClosingCursor(models.Model):
    """Event up to which the events were searched for the ends of shown notifications. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    position = models.BigIntegerField(default=0)

    class Meta:
        app_label = "push"

    def __str__(self) -> str:
        return f"events up to {self.position}"
