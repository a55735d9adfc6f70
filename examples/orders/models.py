"""Articles, and orders on their way."""

from typing import Any

from django.conf import settings
from django.db import models


class Article(models.Model):
    """What can be ordered."""

    name = models.CharField(max_length=100)
    stock = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.name} ({self.stock} left)"


class Order(models.Model):
    """One article for one customer. Its steps go forward alone."""

    class Step(models.IntegerChoices):
        """How far it is."""

        PLACED = 1
        PACKED = 2
        SHIPPED = 3
        DELIVERED = 4

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    article = models.ForeignKey(Article, models.PROTECT)
    step = models.PositiveSmallIntegerField(choices=Step, default=Step.PLACED)

    def __str__(self) -> str:
        return f"{self.pk}: {self.article.name} for {self.customer}"

    def as_message(self) -> dict[str, Any]:
        """As the browsers get it."""
        return {
            "type": "order",
            "id": self.pk,
            "article": self.article.name,
            "customer": self.customer.get_username(),
            "step": self.step,
            "status": self.get_step_display(),
        }
