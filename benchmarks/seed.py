"""Rows for a scenario, put into the database through imgo's own models: set-up, not measured.

`python -m benchmarks.seed tokens FIRST COUNT` or `pending PREFIX KEYS MESSAGES BODY`, with the
servers' environment.
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
