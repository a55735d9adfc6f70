"""Who may join which room."""

from django.contrib.auth import get_user_model

from accounts.identity import Identity
from accounts.identity import authorize_room as default

DESK = "orders-desk"  # all orders


async def authorize_room(identity: Identity, room: str) -> bool:
    """Only staff sees all orders."""
    if room != DESK:
        return await default(identity, room)
    if identity.source != "session":  # the key of a token may be anything
        return False
    staff = get_user_model().objects.filter(is_active=True, is_staff=True)
    return await staff.filter(pk=identity.key).aexists()
