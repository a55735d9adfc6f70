"""Permission of operators to view the dashboard, and the identity of a dashboard's session.

A dashboard's session must not have its user's subscriber key. Otherwise the page would settle
messages that are pending for that key, and discard them. So its key contains a control character,
which `check_name` forbids in subscriber keys. No token or JWT can name such a key, and nothing can
be pushed to it.
"""

import secrets
from typing import Any

from accounts.identity import Facts, Identity, signed_in
from imgo_site.conf import conf
from imgo_site.database_threads import login_threads
from imgo_site.errors import NotAuthenticated
from imgo_site.names import DASHBOARD_ROOM

DASHBOARD = "dashboard"  # the source of such an identity
KEY_START = "\x01dashboard:"
VIEW_DASHBOARD = "push.view_dashboard"  # the permission


def may_watch(user: Any) -> bool:
    """Return whether a user may view the dashboard. It may query the database."""
    # A project's user model may lack any of these.
    is_staff = getattr(user, "is_active", False) and getattr(user, "is_staff", False)
    return bool(is_staff and hasattr(user, "has_perm") and user.has_perm(VIEW_DASHBOARD))


async def authenticate_dashboard(facts: Facts) -> Identity:
    """Return the identity of a dashboard's session, from the login of its browser.

    Each session gets its own key. Otherwise the limit of sessions a key would close one dashboard
    for another.

    Raises `NotAuthenticated` if the browser has no login that may view the dashboard.
    """
    if not conf.SESSION_AUTH or facts.transport != "websocket" or "cookie" not in facts.headers:
        raise NotAuthenticated("The dashboard needs the login of a browser on our own pages.")
    user, expires, proof = await signed_in(facts)
    if not await login_threads.run(may_watch, user):
        raise NotAuthenticated("This user may not look at the dashboard.")
    key = f"{KEY_START}{user.pk}:{secrets.token_hex(4)}"
    return Identity(key, (DASHBOARD_ROOM,), expires, DASHBOARD, proof)


def is_dashboard_key(key: str) -> bool:
    """Return whether `key` is the key of a dashboard's session."""
    return key.startswith(KEY_START)


def is_kept_apart(identity: Identity, room: str) -> bool:
    """Return whether the identity may not be in the room: only one of them is the dashboard's."""
    return (identity.source == DASHBOARD) != (room == DASHBOARD_ROOM)
