"""Encryption of Web Push messages, with the example of RFC 8291, and VAPID tokens."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from push.devices.providers.encryption import PLAIN_MAX, encrypt
from push.devices.providers.vapid import (
    LIFETIME,
    Vapid,
    new_private_key,
    public_key_of,
    read_private_key,
)

from .push_service import SUBJECT, Browser, b64, point_of, unb64

# RFC 8291, appendix A.
PLAIN = b"When I grow up, I want to be a watermelon"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
RECEIVER = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH, SALT = "BTBZMqHH6r4Tts7J_aSIgg", "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS"
    "6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qu"
    "lcy4a-fN"
)


def test_message_of_the_rfc_is_encrypted_to_its_bytes() -> None:
    sender = ec.derive_private_key(int.from_bytes(unb64(SENDER), "big"), ec.SECP256R1())
    receiver, auth, salt = unb64(RECEIVER), unb64(AUTH), unb64(SALT)
    assert b64(encrypt(PLAIN, receiver, auth, salt=salt, sender=sender)) == BODY


def test_largest_message_fits_one_record_and_larger_is_refused() -> None:
    browser = Browser("https://x.test/1")
    point = point_of(browser.private.public_key())
    body = encrypt(b"x" * PLAIN_MAX, point, browser.auth)
    assert (len(body), browser.decrypt(body)) == (4096, b"x" * PLAIN_MAX)
    with pytest.raises(ValueError, match="at most 3993 bytes; this one 3994"):
        encrypt(b"x" * (PLAIN_MAX + 1), point, browser.auth)


def test_vapid_token_names_its_service_and_is_kept(monkeypatch) -> None:
    key = read_private_key(new_private_key())
    vapid = Vapid(key, SUBJECT)
    first = vapid.authorization("https://a.test/wpush/1")
    token = first.removeprefix("vapid t=").partition(", k=")[0]
    claims = jwt.decode(token, key.public_key(), algorithms=["ES256"], audience="https://a.test")
    assert claims["sub"] == SUBJECT
    assert first.endswith(f", k={public_key_of(key)}")
    assert vapid.authorization("https://a.test/wpush/2") == first
    assert vapid.authorization("https://b.test/wpush/1") != first
    later = claims["exp"] - LIFETIME / 20
    monkeypatch.setattr("push.devices.providers.vapid.time.time", lambda: later)
    assert vapid.authorization("https://a.test/wpush/1") != first


def test_vapid_token_is_replaced_after_the_clock_was_set_back(monkeypatch) -> None:
    """Its end would be more than 24 hours away, which push services refuse (RFC 8292)."""
    clock = [2_000_000_000.0]
    monkeypatch.setattr("push.devices.providers.vapid.time.time", lambda: clock[0])
    vapid = Vapid(read_private_key(new_private_key()), SUBJECT)
    vapid.authorization("https://a.test/1")
    clock[0] -= 86_400
    token = vapid.authorization("https://a.test/1").removeprefix("vapid t=").partition(", k=")[0]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] == clock[0] + LIFETIME


@pytest.mark.parametrize("text", ["", "abc", "ü" * 43, "-----BEGIN PRIVATE KEY-----"])
def test_wrong_private_key_is_refused_without_repeating_it(text) -> None:
    with pytest.raises(ValueError, match=r"base64url|PEM text") as caught:
        read_private_key(text)
    assert not text or text not in str(caught.value)
