"""Encryption of Web Push messages: RFC 8291 over the content coding aes128gcm of RFC 8188."""

import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# A push service accepts 4,096 bytes (RFC 8030, section 7.2). 86 of them are the header, 16 the tag
# of AES-GCM, and one ends the padding.
PLAIN_MAX = 3_993
RECORD_SIZE = 4_096  # bytes of one record; each message is one
SALT_BYTES = 16


def encrypt(
    plain: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    salt: bytes | None = None,
    sender: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Return the body of a Web Push request.

    `p256dh`, `auth`: the receiver's public key (65 bytes) and secret (16 bytes). `salt`, `sender`:
    16 bytes and a key for this message only; None for random ones.

    Raises `ValueError` above `PLAIN_MAX` bytes, or for a public key that is not on the curve.
    """
    if len(plain) > PLAIN_MAX:
        raise ValueError(f"a message has at most {PLAIN_MAX} bytes; this one {len(plain)}")
    salt = salt or os.urandom(SALT_BYTES)
    sender = sender or ec.generate_private_key(ec.SECP256R1())
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    own = sender.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key, nonce = content_keys(sender.exchange(ec.ECDH(), receiver), auth, p256dh, own, salt)
    # 0x02 ends the padding of the last record. There is none, and one record.
    sealed = AESGCM(key).encrypt(nonce, plain + b"\x02", None)
    return salt + RECORD_SIZE.to_bytes(4, "big") + len(own).to_bytes(1, "big") + own + sealed


def content_keys(
    shared: bytes, auth: bytes, receiver: bytes, sender: bytes, salt: bytes
) -> tuple[bytes, bytes]:
    """Return the key (16 bytes) and nonce (12 bytes) of a message. RFC 8291, section 3.4.

    `shared`: secret of ECDH. `receiver`, `sender`: public keys as uncompressed points.
    """
    secret = _derive(auth, shared, b"WebPush: info\0" + receiver + sender, 32)
    key = _derive(salt, secret, b"Content-Encoding: aes128gcm\0", 16)
    return key, _derive(salt, secret, b"Content-Encoding: nonce\0", 12)


def _derive(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)
