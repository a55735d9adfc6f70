"""manage.py vapid: the keys that it makes work, and the public key of the settings."""

import pytest
from django.core.management.base import CommandError

from push.devices.providers.vapid import public_key_of, read_private_key


def test_new_pair_fits_together_and_its_settings_are_printed(run, data):
    found = data("vapid", "--subject", "mailto:push@example.com")
    assert public_key_of(read_private_key(found["private_key"])) == found["public_key"]
    lines = run("vapid", "--subject", "mailto:push@example.com").splitlines()
    assert lines[0].startswith("IMGO_WEBPUSH_PRIVATE_KEY=")
    assert lines[1] == "IMGO_WEBPUSH_SUBJECT=mailto:push@example.com"


def test_public_key_is_that_of_the_settings(run, data, imgo):
    with pytest.raises(CommandError, match="is not set"):
        run("vapid", "--public")
    pair = data("vapid")
    imgo(WEBPUSH_PRIVATE_KEY=pair["private_key"])
    assert run("vapid", "--public").strip() == pair["public_key"]
    assert data("vapid", "--public") == {"public_key": pair["public_key"]}


def test_contact_that_push_services_refuse_is_refused(run):
    with pytest.raises(CommandError, match="push services refuse contacts"):
        run("vapid", "--subject", "mailto:root@localhost")
