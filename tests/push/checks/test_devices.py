"""Checks of the providers that take notifications to devices."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from push.checks import devices
from push.checks.devices import check_devices, check_networks
from tests.push.devices.push_service import SUBJECT, VAPID_PRIVATE

PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
ACCOUNT = {"project_id": "p", "client_email": "a", "private_key": "k", "token_uri": "https://x"}
WORKS = {
    "WEBPUSH_PRIVATE_KEY": VAPID_PRIVATE,
    "WEBPUSH_SUBJECT": SUBJECT,
    "APNS_KEY": PEM,
    "APNS_KEY_ID": "K",
    "APNS_TEAM_ID": "T",
    "APNS_TOPIC": "com.example",
    "FCM_CREDENTIALS": json.dumps(ACCOUNT),
}


def test_settings_that_work_and_none_are_accepted(imgo):
    assert check_devices() == []
    imgo(**WORKS)
    assert check_devices() == check_networks() == []


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("WEBPUSH_PRIVATE_KEY", "secret-key", "32 bytes in base64url"),
        ("WEBPUSH_SUBJECT", "", "must be a contact"),
        ("WEBPUSH_SUBJECT", "mailto:root@localhost", "'localhost'"),
        ("WEBPUSH_SUBJECT", "push@example.com", "must be a contact"),
        ("APNS_TOPIC", "", "is empty"),
        ("APNS_KEY", "/no/such/file", "no file that can be read"),
        ("APNS_KEY", "-----BEGIN secret-key", "not PEM text"),
        ("FCM_CREDENTIALS", '{"private_key": "secret-key"}', "no 'project_id'"),
    ],
)
def test_setting_that_cannot_work_is_reported_without_its_secret(imgo, name, value, part):
    imgo(**{**WORKS, name: value})
    (message,) = check_devices()
    assert (message.id, message.msg.startswith(name)) == ("imgo.E054", True)
    assert part in message.msg
    assert "secret-key" not in message.msg


def test_missing_package_is_reported_if_a_provider_is_configured(imgo, monkeypatch):
    monkeypatch.setattr(devices, "PACKAGES", ("no_such_package",))
    assert check_devices() == []
    imgo(**WORKS)
    (message,) = check_devices()
    assert (message.id, "imgo[webpush]" in message.hint) == ("imgo.E055", True)


@pytest.mark.parametrize(
    "change", [{"WEBPUSH_NETWORKS": ["10.0.0.0/99"]}, {"APNS_SERVER": "http://x"}]
)
def test_wrong_network_or_server_is_reported(imgo, change):
    imgo(**change)
    assert [message.id for message in check_networks()] == ["imgo.E056"]
