"""Realtime push: sessions, and the pushes that reach them.

The Python way to push, usable inside a transaction (nothing leaves before it commits):

    from push import push_to_key

    with transaction.atomic():
        order.save()
        push_to_key(order.customer_key, {"order": order.pk, "status": "shipped"})
"""

from typing import Any

__all__ = ["push_to_all", "push_to_key", "push_to_keys", "push_to_room"]


def __getattr__(name: str) -> Any:
    # Imported on first use: Django imports this package before models may be.
    if name in __all__:
        from push.accept import accept as services

        return getattr(services, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
