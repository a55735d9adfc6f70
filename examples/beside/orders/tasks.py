"""Tasks of the shop's own Celery workers. They push as views do."""

from celery import shared_task

from orders.models import Order


@shared_task
def pack(order: int) -> None:
    """Pack an order that was placed."""
    Order.objects.get(pk=order).advance(Order.Status.PLACED)
