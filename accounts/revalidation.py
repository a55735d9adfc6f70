"""Revalidation of open sessions, after revoked tokens, disabled users and logouts.

A JWT is valid until it expires; it cannot be revoked. A custom `AUTHENTICATOR` has to end its
sessions itself, by closing those of the key.
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
    """Return the identities whose login would be refused now.

    It makes at most three queries for any number of identities, and two more for each dashboard of
    a user who is not a superuser. If Django's sessions are outside the database, it also reads one
    session for each login.
    """
    by_token = [each for each in identities if each.source == "token" and each.proof]
    by_login = [each for each in identities if each.source in {"session", DASHBOARD} and each.proof]
    return _without_token(by_token) + _without_login(by_login)


def _without_token(identities: list[Identity]) -> list[Identity]:
    rows = Token.objects.filter(key__in={identity.key for identity in identities})
    proofs = {key: proof_of(digest) for key, digest in rows.values_list("key", "digest")}
    return [each for each in identities if proofs.get(each.key) != each.proof]


def _without_login(identities: list[Identity]) -> list[Identity]:
    if not identities:
        return []
    logins = _logins([identity.proof.decode() for identity in identities])
    users = get_user_model()._default_manager.filter(
        pk__in={login[SESSION_KEY] for login in logins.values()}, is_active=True
    )
    by_id = {str(user.pk): user for user in users}
    return [
        identity
        for identity in identities
        if not _is_valid(identity, logins.get(identity.proof.decode()), by_id)
    ]


def _logins(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the logins of these Django sessions, without those that have ended."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if hasattr(store, "get_model_class"):  # sessions in the database: one query for all
        rows = store.get_model_class().objects.filter(session_key__in=names, expire_date__gt=Now())
        loaded = {row.session_key: row.get_decoded() for row in rows}
    else:
        loaded = {name: store(name).load() for name in names}
    backends = settings.AUTHENTICATION_BACKENDS
    return {
        name: login
        for name, login in loaded.items()
        if SESSION_KEY in login and login.get(BACKEND_SESSION_KEY) in backends
    }


def _is_valid(identity: Identity, login: dict[str, Any] | None, users: dict[str, Any]) -> bool:
    user = users.get(str(login[SESSION_KEY])) if login is not None else None
    if login is None or user is None:
        return False
    if identity.source == DASHBOARD and not may_watch(user):
        return False
    # The hash changes with the password, so a new password ends all logins of a user.
    login_hash = login.get(HASH_SESSION_KEY, "")
    return constant_time_compare(login_hash, user.get_session_auth_hash())
