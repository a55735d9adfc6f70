"""Rows for a scenario, put into the database through imgo's own models: set-up, not measured.

`python -m benchmarks.seed tokens FIRST COUNT`, `pending PREFIX KEYS MESSAGES BODY` or
`devices PROVIDER COUNT URL`, with the servers' environment.
"""

import sys

import django


def tokens(first: int, count: int) -> None:
    """A token for each of the keys, as `bench.auths` writes them."""
    from accounts.models import Token, digest

    rows = (
        Token(key=f"bench-{number}", digest=digest(f"bench-token-{number:07d}"))
        for number in range(first, first + count)
    )
    Token.objects.bulk_create(rows, batch_size=5000, ignore_conflicts=True)


def pending(first: int, keys: int, messages: int, body: str) -> None:
    """For each of `keys` keys, from number `first` on, so many messages."""
    from django.db import transaction

    from offline.models import Outbox
    from offline.store import insert
    from offline.values import NewMessage

    for key in range(first, first + keys):
        new = NewMessage(body.encode(), 86_400, keys=(f"bench-{key}",), by="bench")
        with transaction.atomic():
            insert([new] * messages)
    Outbox.objects.all().delete()  # as if fanned out long ago, to nobody


def devices(provider: str, count: int, url: str) -> None:
    """A device for each of the keys `<provider>-0`, `<provider>-1` and so on."""
    import json
    import os

    from cryptography.hazmat.primitives.asymmetric import ec

    from push.devices.addresses import Address
    from push.devices.base64url import encode_base64url
    from push.devices.providers.vapid import public_key_of
    from push.devices.tables import Device

    keys = {
        "p256dh": public_key_of(ec.generate_private_key(ec.SECP256R1())),
        "auth": encode_base64url(os.urandom(16)),
    }

    def address(number: int) -> Address:
        text = f"{number:064x}"
        if provider == "webpush":
            text = json.dumps({"endpoint": f"{url}/wpush/{number}", **keys})
        return Address(provider, text)

    addresses = [address(number) for number in range(count)]
    rows = (
        Device(key=f"{provider}-{number}", provider=provider, address=one.text, digest=one.digest)
        for number, one in enumerate(addresses)
    )
    Device.objects.bulk_create(rows, batch_size=5000)


def main() -> None:
    """Run one of the functions above."""
    django.setup()
    name, *arguments = sys.argv[1:]
    if name == "tokens":
        tokens(*map(int, arguments))
    elif name == "devices":
        devices(arguments[0], int(arguments[1]), arguments[2])
    else:
        first, keys, messages, body = arguments
        pending(int(first), int(keys), int(messages), body)


if __name__ == "__main__":
    main()
