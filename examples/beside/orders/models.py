"""Orders, and the notifications of their customers."""

from typing import Any

from django.conf import settings
from django.db import models, transaction

from imgo_client.django import push_to_key, push_to_room
from orders.rooms import DESK


class Order(models.Model):
    """An order. Its status only goes forward."""

    class Status(models.IntegerChoices):
        """How far an order is."""

        PLACED = 1
        PACKED = 2
        SHIPPED = 3

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    article = models.CharField(max_length=100)
    status = models.PositiveSmallIntegerField(choices=Status, default=Status.PLACED)

    def __str__(self) -> str:
        return f"{self.article}, order {self.pk}"

    @transaction.atomic
    def advance(self, status: int) -> bool:
        """Move to the status after this one and push that; return whether it was still this one.

        The pushes are rows in an outbox of this database. If the transaction is rolled back, so
        are they. If imgo is down, they wait.
        """
        as_seen = Order.objects.filter(pk=self.pk, status=status, status__lt=Order.Status.SHIPPED)
        if not as_seen.update(status=models.F("status") + 1):
            return False
        self.refresh_from_db()
        text = f"{self} is {self.get_status_display().lower()}"
        notification = Notification.objects.create(user=self.customer, text=text)
        push_to_key(str(self.customer_id), notification.as_message())
        push_to_room(DESK, {"type": "order", "id": self.pk})
        return True


class Notification(models.Model):
    """What a user was told, and whether the user has read it."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=200)
    is_read = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.text

    def as_message(self) -> dict[str, Any]:
        """Return the body of the push."""
        return {"type": "notification", "id": self.pk, "text": self.text, "is_read": self.is_read}
