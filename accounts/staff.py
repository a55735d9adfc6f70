"""Operators: who may look at the dashboard, and the identity of a dashboard's own session.

Such a session must not have its user's subscriber key: what is pending for that key would be
settled by a page that throws it away. Its key holds a control character, which no subscriber key
may (`check_name`), so it has no token, no JWT names it, and nothing can be pushed to it.
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
    """Whether a user may look at the dashboard. It may ask the database."""
    # A project's user model may lack any of these.
    is_staff = getattr(user, "is_active", False) and getattr(user, "is_staff", False)
    return bool(is_staff and hasattr(user, "has_perm") and user.has_perm(VIEW_DASHBOARD))


async def authenticate_dashboard(facts: Facts) -> Identity:
    """The identity of a dashboard's session, from the login of its browser.

    A key of its own for each, so that the cap on sessions of a key does not close one for
    another. Raises `NotAuthenticated`.
    """
    if not conf.SESSION_AUTH or facts.transport != "websocket" or "cookie" not in facts.headers:
        raise NotAuthenticated("The dashboard needs the login of a browser on our own pages.")
    user, expires, proof = await signed_in(facts)
    if not await login_threads.run(may_watch, user):
        raise NotAuthenticated("This user may not look at the dashboard.")
    key = f"{KEY_START}{user.pk}:{secrets.token_hex(4)}"
    return Identity(key, (DASHBOARD_ROOM,), expires, DASHBOARD, proof)


def is_dashboard_key(key: str) -> bool:
    """Whether it is the key of a dashboard's session."""
    return key.startswith(KEY_START)


def is_kept_apart(identity: Identity, room: str) -> bool:
    """Whether the identity may not be in the room because one of both is the dashboard's."""
    return (identity.source == DASHBOARD) != (room == DASHBOARD_ROOM)
