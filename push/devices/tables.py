"""Tables of devices, of pushes that notify, and of notifications that wait to be sent.

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


class Notification(models.Model):
    """Message that must be sent to one device. The row ends with its outcome.

    A claim moves `next_at` to the end of its lease. Without an outcome by then, another claim
    sends the notification again.
    """

    notice = models.ForeignKey(Notice, on_delete=models.CASCADE)
    message_id = models.BigIntegerField()
    key = models.CharField(max_length=255)
    device = models.ForeignKey(Device, on_delete=models.CASCADE)
    provider = models.CharField(max_length=8)
    next_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="When the message expires.")
    attempts = models.IntegerField(default=0)

    class Meta:
        app_label = "push"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["message_id", "device"], name="notification_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["provider", "next_at"], name="notification_next"),
        ]

    def __str__(self) -> str:
        return f"notification of message {self.message_id} to device {self.device_id}"
