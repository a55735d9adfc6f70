"""What happens to orders. Whom it concerns is told when it is committed, and not before."""

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F

from examples.orders.models import Article, Order
from examples.orders.rooms import DESK
from push import push_to_key, push_to_room


class SoldOut(Exception):
    """There is none left."""


@transaction.atomic
def place(customer: User, article: Article) -> Order:
    """Raises `SoldOut`; then there is no order, and nobody has heard of one."""
    order = Order.objects.create(customer=customer, article=article)
    _tell(order)
    # Last, because it locks the article until the commit; if it fails, all of this is undone.
    in_stock = Article.objects.filter(pk=article.pk, stock__gt=0)
    if not in_stock.update(stock=F("stock") - 1):
        raise SoldOut
    return order


@transaction.atomic
def advance(order: Order) -> None:
    """One step further; if somebody else was quicker, none."""
    as_seen = Order.objects.filter(pk=order.pk, step=order.step)
    order.step += 1
    if order.step in Order.Step and as_seen.update(step=order.step):
        _tell(order)


def _tell(order: Order) -> None:
    message = order.as_message()
    push_to_key(str(order.customer.pk), message)  # waits when the customer is away
    push_to_room(DESK, message)
