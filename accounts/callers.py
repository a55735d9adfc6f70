"""Readable names of callers: an API key's own name instead of its number."""

from collections.abc import Iterable
from typing import Any

from django.db.models import BigIntegerField, Case, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Cast, Substr

from accounts.models import ApiKey

PREFIX = "apikey:"  # starts the recorded name of a caller with a stored API key
_BIG = BigIntegerField()


def caller_names(names: Iterable[str]) -> dict[str, str]:
    """Return the readable name of each caller: `shop (apikey:1)` for `apikey:1`.

    A caller without a stored API key, or with a deleted one, keeps its recorded name.
    """
    recorded = set(names)
    numbers = {
        int(number)
        for name in recorded
        if name.startswith(PREFIX) and (number := name.removeprefix(PREFIX)).isdecimal()
    }
    shown = {name: name for name in recorded}
    if numbers:
        for pk, own in ApiKey.objects.filter(pk__in=numbers).values_list("pk", "name"):
            shown[f"{PREFIX}{pk}"] = f"{own} ({PREFIX}{pk})"
    return shown


def with_caller_names(rows: "QuerySet[Any]") -> "QuerySet[Any]":
    """Annotate rows that have a caller in `by` with `caller_name`, its API key's name or None."""
    number = Case(
        When(by__regex=f"^{PREFIX}[0-9]{{1,18}}$", then=Cast(Substr("by", len(PREFIX) + 1), _BIG)),
        output_field=_BIG,
    )
    name = ApiKey.objects.filter(pk=OuterRef("caller_number")).values("name")[:1]
    named: QuerySet[Any] = rows.annotate(caller_number=number).annotate(caller_name=Subquery(name))
    return named


def caller_name(name: str) -> str:
    """Return the readable name of one caller."""
    return caller_names([name])[name]
