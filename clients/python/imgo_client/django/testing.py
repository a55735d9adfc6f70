"""Helpers for a project's tests: the pushes that the code under test has made.

In tests no relay runs, so the outbox keeps what was pushed. A push that was rolled back to a
savepoint is not in it. That is why these helpers read the outbox instead of replacing the calls.

    from imgo_client.django.testing import PushAssertions

    class OrderTests(PushAssertions, TestCase):
        def test_order_is_pushed_to_its_customer(self) -> None:
            place_order("alice")
            self.assertPushed({"status": "new"}, key="alice")

With pytest, the fixture `imgo_pushes` is such a list: `assert imgo_pushes[0].body == {...}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload
from uuid import UUID

from imgo_client.django.models import Outbox
from imgo_client.django.pushing import MESSAGE_OP, outbox_databases


@dataclass(frozen=True)
class Pushed:
    """One push. Exactly one of `key`, `keys`, `room` and `all` is set.

    `body`: the JSON value. `id`: what the call returned.
    """

    id: UUID
    body: Any
    key: str | None = None
    keys: tuple[str, ...] | None = None
    room: str | None = None
    all: bool = False
    ttl: int | None = None
    store: bool = True
    op: int = MESSAGE_OP
    ensure: bool = False
    dedupe_id: str = ""
    send_at: str | None = None  # ISO form
    exclude: Sequence[str] = ()
    collapse_key: str = ""
    version: int | None = None
    notify: dict[str, Any] | None = None
    notify_after: float | None = None

    @classmethod
    def of(cls, row: Outbox) -> Pushed:
        """Return the push of an outbox row."""
        target = Outbox.Target(row.target)
        return cls(
            id=UUID(row.push_id),
            body=json.loads(bytes(row.body)),
            key=row.name if target == Outbox.Target.KEY else None,
            keys=None if row.keys is None else tuple(row.keys),
            room=row.name if target == Outbox.Target.ROOM else None,
            all=target == Outbox.Target.ALL,
            **row.options,
        )


class Pushes(Sequence[Pushed]):
    """The pushes in the outbox, oldest first. It is read from the database at each access.

    `using`: the database; "": the router's.
    """

    def __init__(self, using: str = "") -> None:
        self._using = using

    def _read(self) -> list[Pushed]:
        rows = Outbox.objects.using(self._using or outbox_databases()[0])
        rows = rows.exclude(target=Outbox.Target.CANCEL)
        return [Pushed.of(row) for row in rows.order_by("sequence")]

    def __len__(self) -> int:
        return len(self._read())

    def __iter__(self) -> Iterator[Pushed]:
        return iter(self._read())

    @overload
    def __getitem__(self, index: int) -> Pushed: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pushed]: ...

    def __getitem__(self, index: int | slice) -> Pushed | list[Pushed]:
        return self._read()[index]

    def __eq__(self, other: object) -> bool:
        return self._read() == (list(other) if isinstance(other, Sequence) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._read())

    def matching(self, body: Any = ..., **members: Any) -> list[Pushed]:
        """Return those with this body and these members of `Pushed`, such as `key="alice"`."""
        expected = members if body is ... else {**members, "body": body}
        if unknown := expected.keys() - Pushed.__dataclass_fields__.keys():
            raise TypeError(f"A push has no member {', '.join(sorted(unknown))}.")
        return [
            push
            for push in self._read()
            if all(getattr(push, name) == value for name, value in expected.items())
        ]

    def clear(self) -> None:
        """Delete all, so that a test can begin anew within itself."""
        Outbox.objects.using(self._using or outbox_databases()[0]).all().delete()


class PushAssertions:
    """Mixin for `django.test.TestCase` and its relatives.

    `body`: left out for any. `count`: how many such pushes there must be; None: at least one.
    Members: those of `Pushed`.
    """

    @property
    def pushes(self) -> Pushes:
        """The pushes so far."""
        return Pushes()

    def assertPushed(  # noqa: N802 - unittest's manner
        self, body: Any = ..., *, count: int | None = None, **members: Any
    ) -> list[Pushed]:
        """Fail unless such a push was made; return all that match."""
        matches = self.pushes.matching(body, **members)
        if (count is None and not matches) or (count is not None and len(matches) != count):
            members_text = members if body is ... else {"body": body, **members}
            expected = "at least one push" if count is None else f"{count} pushes"
            raise AssertionError(
                f"Expected {expected} with {members_text}, "
                f"found {len(matches)} among {self.pushes!r}"
            )
        return matches

    def assertNotPushed(self, body: Any = ..., **members: Any) -> None:  # noqa: N802
        """Fail if such a push was made."""
        self.assertPushed(body, count=0, **members)
