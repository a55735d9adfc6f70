"""Rows for a scenario, put into the database through imgo's own models: set-up, not measured.

`python -m benchmarks.seed tokens FIRST COUNT` or `pending PREFIX KEYS MESSAGES BODY`, with the
servers' environment.
"""

import sys
from datetime import timedelta

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
    from django.utils import timezone

    from offline.models import Message

    now = timezone.now()
    for key in range(first, first + keys):
        rows = [
            Message(
                audience="keys",
                stored=True,
                body=body.encode(),
                by="bench",
                created_at=now,
                expires_at=now + timedelta(days=1),
            )
            for _ in range(messages)
        ]
        with transaction.atomic():
            Message.objects.store(rows, [(f"bench-{key}",)] * messages)


def main() -> None:
    """Run one of the functions above."""
    django.setup()
    name, *arguments = sys.argv[1:]
    if name == "tokens":
        tokens(*map(int, arguments))
    else:
        first, keys, messages, body = arguments
        pending(int(first), int(keys), int(messages), body)


if __name__ == "__main__":
    main()
