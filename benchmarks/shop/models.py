"""What a request of the project writes."""

from django.db import models


class Order(models.Model):
    """An order of a customer."""

    customer = models.CharField(max_length=50)

    def __str__(self) -> str:
        return f"order {self.pk}"
