"""What users are told."""

from django.conf import settings
from django.db import models


class Notification(models.Model):
    """Something that one user is told, and whether it was read."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=200)
    is_read = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["user"], name="bell_unread", condition=models.Q(is_read=False)),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.text}"
