"""What devices measure."""

from django.db import models


class Reading(models.Model):
    """What one device has measured at one time."""

    device = models.CharField(max_length=255)  # its subscriber key
    at = models.DateTimeField()
    celsius = models.FloatField()

    class Meta:
        constraints = [
            # A device that has not heard the answer sends a reading again.
            models.UniqueConstraint(fields=["device", "at"], name="one_reading_at_a_time"),
        ]

    def __str__(self) -> str:
        return f"{self.device}: {self.celsius} °C at {self.at:%F %T}"
