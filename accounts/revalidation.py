"""Whether the identities of open sessions still stand: tokens revoked, users disabled, logouts.

A JWT stands until it expires: nobody can take it back. What a custom `AUTHENTICATOR` verified it
has to end itself, by closing the key's sessions.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare

from accounts.identity import Identity, proof_of
from accounts.models import Token
from accounts.staff import DASHBOARD, may_watch


def revoked(identities: Sequence[Identity]) -> list[Identity]:
    """Those that would not be let in again: three queries at most, however many are asked about,
    and two for each dashboard of a user who is no superuser.

    Where Django keeps its sessions outside of the database, one read for each login.
    """
    by_token = [one for one in identities if one.source == "token" and one.proof]
    by_login = [one for one in identities if one.source in {"session", DASHBOARD} and one.proof]
    return _without_token(by_token) + _without_login(by_login)


def _without_token(identities: list[Identity]) -> list[Identity]:
    rows = Token.objects.filter(key__in={one.key for one in identities})
    standing = {key: proof_of(digest) for key, digest in rows.values_list("key", "digest")}
    return [one for one in identities if standing.get(one.key) != one.proof]


def _without_login(identities: list[Identity]) -> list[Identity]:
    if not identities:
        return []
    logins = _logins([one.proof.decode() for one in identities])
    users = get_user_model()._default_manager.filter(
        pk__in={login[SESSION_KEY] for login in logins.values()}, is_active=True
    )
    by_id = {str(user.pk): user for user in users}
    return [one for one in identities if not _stands(one, logins.get(one.proof.decode()), by_id)]


def _logins(names: list[str]) -> dict[str, dict[str, Any]]:
    """The logins of these Django sessions, without those that have ended."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if hasattr(store, "get_model_class"):  # they are in the database: one query
        rows = store.get_model_class().objects.filter(session_key__in=names, expire_date__gt=Now())
        loaded = {row.session_key: row.get_decoded() for row in rows}
    else:
        loaded = {name: store(name).load() for name in names}
    known = settings.AUTHENTICATION_BACKENDS
    return {
        name: login
        for name, login in loaded.items()
        if SESSION_KEY in login and login.get(BACKEND_SESSION_KEY) in known
    }


def _stands(identity: Identity, login: dict[str, Any] | None, users: dict[str, Any]) -> bool:
    user = users.get(str(login[SESSION_KEY])) if login is not None else None
    if login is None or user is None:
        return False
    if identity.source == DASHBOARD and not may_watch(user):
        return False
    # It changes with the password, which ends all logins of a user.
    given = login.get(HASH_SESSION_KEY, "")
    return constant_time_compare(given, user.get_session_auth_hash())
