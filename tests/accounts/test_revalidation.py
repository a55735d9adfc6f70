"""Revalidation: who would not be let in again."""

from dataclasses import replace

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.identity import Identity, proof_of
from accounts.models import Token, digest
from accounts.revalidation import revoked
from accounts.staff import DASHBOARD

pytestmark = [pytest.mark.django_db, pytest.mark.any_database]


def with_token(key: str, text: str) -> Identity:
    """Who was let in with this token."""
    return Identity(key, source="token", proof=proof_of(digest(text)))


def issue(key: str) -> Identity:
    """Who has just been let in with a new token."""
    _, text = Token.objects.issue(key)
    return with_token(key, text)


class Browser:
    """A signed-in user, and who was let in with the cookie."""

    def __init__(self, name: str) -> None:
        self.user = User.objects.create_user(name, password="before")
        self.client = Client()
        self.client.force_login(self.user)
        cookie = self.client.cookies["sessionid"].value
        self.identity = Identity(str(self.user.pk), source="session", proof=cookie.encode())


@pytest.fixture
def browser() -> Browser:
    return Browser("ann")


# Stored tokens


def test_who_has_its_token_still_stays():
    assert revoked([issue("u1"), issue("u2")]) == []
    assert revoked([]) == []


def test_who_has_no_token_any_more_goes():
    gone, stays = issue("u1"), issue("u2")
    Token.objects.filter(key="u1").delete()
    assert revoked([gone, stays]) == [gone]


def test_who_has_another_token_now_goes():
    old = issue("u1")
    new = issue("u1")
    assert revoked([old, new]) == [old]


def test_who_has_the_same_token_for_longer_stays():
    Token.objects.issue("u1", token="t", expires_in=60)
    Token.objects.issue("u1", token="t", expires_in=600, rooms=["a"])
    assert revoked([with_token("u1", "t")]) == []


def test_token_reissued_to_another_key_is_no_longer_the_first_keys():
    Token.objects.issue("u1", token="t")
    Token.objects.issue("u2", token="t")
    first, second = with_token("u1", "t"), with_token("u2", "t")
    assert revoked([first, second]) == [first]


# Logins


def test_who_is_signed_in_stays(browser):
    assert revoked([browser.identity]) == []


def test_who_signed_out_goes(browser):
    browser.client.logout()
    assert revoked([browser.identity]) == [browser.identity]


def test_a_user_who_was_disabled_goes_and_the_others_stay(browser):
    other = Browser("ben")
    User.objects.filter(pk=browser.user.pk).update(is_active=False)
    assert revoked([browser.identity, other.identity]) == [browser.identity]


def test_a_user_who_was_deleted_goes(browser):
    browser.user.delete()
    assert revoked([browser.identity]) == [browser.identity]


def test_a_user_with_another_password_goes(browser):
    browser.user.set_password("after")
    browser.user.save()
    assert revoked([browser.identity]) == [browser.identity]


def test_a_login_that_is_over_goes(browser):
    Session.objects.update(expire_date="2000-01-01T00:00Z")
    assert revoked([browser.identity]) == [browser.identity]


def test_a_backend_that_is_no_more_lets_nobody_in(browser, settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    assert revoked([browser.identity]) == [browser.identity]


def test_a_session_in_which_nobody_is_signed_in_goes():
    store = SessionStore()
    store["cart"] = 1
    store.save()
    nobody = Identity("1", source="session", proof=store.session_key.encode())
    assert revoked([nobody]) == [nobody]


# Others


@pytest.mark.parametrize("source", ["jwt", "custom"])
def test_what_nobody_can_take_back_stays(source):
    assert revoked([Identity("u1", source=source)]) == []
    assert revoked([Identity("u1", source=source, proof=b"x" * 16)]) == []


def test_what_an_authenticator_of_its_own_gave_no_proof_of_stays():
    assert revoked([Identity("u1"), Identity("u1", source="session")]) == []


def test_all_are_looked_at_with_three_queries():
    identities = [issue(f"u{n}") for n in range(5)] + [Browser(f"b{n}").identity for n in range(5)]
    with CaptureQueriesContext(connection) as queries:
        assert revoked(identities) == []
    assert len(queries) <= 3


# Dashboards


@pytest.fixture
def operator(browser) -> Browser:
    """A member of the staff with the permission, whose dashboard is open."""
    User.objects.filter(pk=browser.user.pk).update(is_staff=True)
    permission = Permission.objects.get(codename="view_dashboard")
    browser.user.user_permissions.add(permission)
    browser.identity = replace(browser.identity, key="\x01dashboard:1:a", source=DASHBOARD)
    return browser


def test_an_operators_dashboard_stays(operator):
    assert revoked([operator.identity]) == []


@pytest.mark.parametrize("lost", [{"is_staff": False}, {"is_active": False}])
def test_the_dashboard_of_who_is_no_operator_any_more_goes(operator, lost):
    User.objects.filter(pk=operator.user.pk).update(**lost)
    assert revoked([operator.identity]) == [operator.identity]


def test_the_dashboard_of_who_lost_the_permission_goes(operator):
    operator.user.user_permissions.clear()
    assert revoked([operator.identity]) == [operator.identity]


def test_the_dashboard_of_who_has_signed_out_goes(operator):
    operator.client.logout()
    assert revoked([operator.identity]) == [operator.identity]
