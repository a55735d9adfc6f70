"""Table of the devices of keys with the scope `each`: see `imgo_site/ack_scope.py`."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

DEVICE_MAX = 64  # characters of a device's name


class KeyDevice(models.Model):
    """Named client of a key with the scope `each`, which gets and acknowledges all messages.

    The name "" stands for all clients of the key that give no name. They are one device.
    """

    key = models.CharField(max_length=255)
    name = models.CharField(max_length=DEVICE_MAX, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(help_text="When a session of it was known to be open.")

    class Meta:
        app_label = "offline"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["key", "name"], name="key_device_once"),
        ]
        indexes: ClassVar = [models.Index(fields=["seen_at"], name="key_device_seen")]

    def __str__(self) -> str:
        return f"device {self.name!r} of {self.key}"
