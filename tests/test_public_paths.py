"""Dotted paths that projects use in their settings and code go on working."""

import pytest
from django.utils.module_loading import import_string

import push
from push.accept import accept

PATHS = (
    "accounts.identity.AuthBody",
    "accounts.identity.Facts",
    "accounts.identity.Identity",
    "accounts.identity.authenticate",
    "accounts.identity.authorize_room",
    "accounts.identity.user_key",
    "accounts.models.Token",
    "imgo_site.asgi.application",
    "imgo_site.conf.conf",
    "imgo_site.errors.BadRequest",
    "imgo_site.errors.NotAuthenticated",
    "imgo_site.errors.OutcomeUnknown",
    "imgo_site.wsgi.application",
    "push.api.problems.bad_request",
    "push.api.problems.not_found",
    "push.api.problems.server_error",
    "push.layers.InProcessChannelLayer",
    "push.layers.PubSubChannelLayer",
    "push.probes.Probes",
    "push.receiver.default_receiver",
    "push.routing.get_application",
    "push.signals.key_offline",
    "push.signals.key_online",
)


@pytest.mark.parametrize("path", PATHS)
def test_public_path_can_be_imported(path):
    assert import_string(path) is not None


def test_package_push_has_the_functions_that_push():
    for name in ("push_to_all", "push_to_key", "push_to_keys", "push_to_room"):
        assert getattr(push, name) is getattr(accept, name)
