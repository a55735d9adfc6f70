"""Tables of streams as a whole. That of their messages is in `offline/models.py`."""

from typing import ClassVar

from django.db import models


class Stream(models.Model):
    """The kept messages of a room, as a whole: what a position in it means, and the next one.

    A position is an epoch and an offset. Offsets are 1, 2, 3 ... without gaps. Another epoch means
    that offsets of before may belong to other messages now.
    """

    room = models.CharField(max_length=255, unique=True)
    epoch = models.CharField(max_length=16)
    top = models.BigIntegerField(default=0, help_text="Offset of the newest message; 0: none.")
    size = models.BigIntegerField(default=0, help_text="Bytes of the bodies that are kept.")
    cluster = models.CharField(
        max_length=40, help_text="Identity of the database that has assigned the latest offsets."
    )
    used_at = models.DateTimeField(help_text="The last message, or session that was in the room.")

    class Meta:
        app_label = "offline"
        indexes: ClassVar = [models.Index(fields=["used_at"], name="stream_used_at")]

    def __str__(self) -> str:
        return f"stream of {self.room}"


class NextEpoch(models.Model):
    """The epoch of streams that are created next: see `offline/stream_epochs.py`."""

    cluster = models.CharField(
        max_length=40, unique=True, help_text="Identity of the database that has chosen it."
    )
    epoch = models.CharField(max_length=16)
    made_at = models.DateTimeField()

    class Meta:
        app_label = "offline"

    def __str__(self) -> str:
        return f"epoch {self.epoch} of streams that are created next"
