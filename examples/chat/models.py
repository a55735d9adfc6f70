"""What was said."""

from typing import Any

from django.conf import settings
from django.db import models


class Line(models.Model):
    """What somebody said."""

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=500)
    said_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.author}: {self.text}"

    def as_message(self) -> dict[str, Any]:
        """As the browsers get it."""
        return {
            "type": "line",
            "id": self.pk,
            "author": self.author.get_username(),
            "text": self.text,
            "at": self.said_at.isoformat(),
        }
