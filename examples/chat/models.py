"""What was said."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import models


def key_of(user: AbstractBaseUser) -> str:
    """The name of a user as the key of their browsers: others see it on what these publish."""
    return user.get_username()


class Line(models.Model):
    """Line of a chat, with its author."""

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
