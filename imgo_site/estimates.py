"""How many rows a table has, about, without reading it: for pages that people look at."""

from typing import Any

from django.core.paginator import Paginator
from django.db import connections, models
from django.utils.functional import cached_property

EXACT_MAX = 10_000  # rows that are counted; beyond that it is an estimate
PAGES_MAX = 100  # pages of a list; the database walks over all rows before a page


def bounded_count(rows: models.QuerySet[Any]) -> int:
    """How many rows there are, `EXACT_MAX` + 1 when there are more: it stops there.

    It counts in the order that `rows` have: that leads the database to the index of this order,
    where without one it would rather read the table from its beginning until it has enough.
    """
    return rows[: EXACT_MAX + 1].count()


def estimated_count(model: type[models.Model]) -> int:
    """The exact count of a small table, else what the database's statistics say.

    SQLite keeps none: there it is the span of the primary keys, which is too high where rows
    between the first and the last have gone.
    """
    rows = model._default_manager.all()
    count = bounded_count(rows)
    if count <= EXACT_MAX:
        return count
    if connections[rows.db].vendor == "postgresql":
        with connections[rows.db].cursor() as cursor:
            cursor.execute(
                "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)",
                [f'"{model._meta.db_table}"'],
            )
            return max(count, int(cursor.fetchone()[0]))
    ends = rows.aggregate(first=models.Min("pk"), last=models.Max("pk"))
    return max(count, int(ends["last"]) - int(ends["first"]) + 1)


class EstimatingPaginator(Paginator):  # type: ignore[type-arg]  # not generic at run time
    """Pages of a table of any size. What is filtered is counted up to `EXACT_MAX`."""

    @cached_property
    def count(self) -> int:
        """The rows, about."""
        rows = self.object_list
        assert isinstance(rows, models.QuerySet)
        return bounded_count(rows) if rows.query.where else estimated_count(rows.model)

    @cached_property
    def num_pages(self) -> int:
        """No more pages than the database walks through in a moment: search finds the rest."""
        return min(PAGES_MAX, super().num_pages)
