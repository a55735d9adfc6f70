"""Fill the outbox: `python -m benchmarks.shop.fill PUSHES KEYS` pushes in one transaction."""

import sys

import django


def main(count: int, keys: int) -> None:
    """Push so many times, to keys in turn."""
    from django.db import transaction

    from imgo_client.django import push_to_key

    with transaction.atomic():
        for number in range(count):
            push_to_key(f"relayed-{number % keys}", {"n": number, "text": "hello"})


if __name__ == "__main__":
    django.setup()
    main(*map(int, sys.argv[1:]))
