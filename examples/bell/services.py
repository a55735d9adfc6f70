"""The only doors to notifications: what they change, all tabs of the user are told."""

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from examples.bell.models import Notification
from imgo_site.conf import conf
from push import push_to_key

LATEST = 5  # notifications that the bell shows


@transaction.atomic
def notify(user: User, text: str) -> None:
    """Tell a user something; inside of your transaction, when that commits."""
    _lock(user)
    Notification.objects.create(user=user, text=text)
    push_to_key(str(user.pk), {"type": "bell", "news": text, **state(user)}, notify=shown(text))


def shown(text: str) -> dict[str, str] | None:
    """What the user's devices show if no tab is open; None without a key for Web Push."""
    if not conf.WEBPUSH_PRIVATE_KEY:
        return None
    return {"title": "A new notification", "body": text, "url": "/home/"}


@transaction.atomic
def mark_read(user: User) -> None:
    """The user has read everything, in whichever tab."""
    _lock(user)
    if Notification.objects.filter(user=user, is_read=False).update(is_read=True):
        push_to_key(str(user.pk), {"type": "bell", "news": "", **state(user)})


def state(user: User) -> dict[str, Any]:
    """What the bell shows."""
    mine = Notification.objects.filter(user=user)
    return {
        "unread": mine.filter(is_read=False).count(),
        "latest": list(mine.order_by("-pk").values_list("text", flat=True)[:LATEST]),
    }


def _lock(user: User) -> None:
    """One change at a time for each user: two at once would both count without the other."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
