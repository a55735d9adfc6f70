"""Approximate row counts of large tables at a bounded cost, for pages that people read."""

from typing import Any

from django.core.paginator import Paginator
from django.db import connections, models
from django.utils.functional import cached_property

EXACT_MAX = 10_000  # up to so many rows are counted exactly
PAGES_MAX = 100  # pages of a list; the database reads all rows before a page


def bounded_count(rows: models.QuerySet[Any]) -> int:
    """Return the number of rows, at most `EXACT_MAX` + 1.

    The query keeps the order of `rows`, so that the database uses the index of that order.
    Without an order it may read the table from its beginning until it has enough rows.
    """
    return rows[: EXACT_MAX + 1].count()


def estimated_count(model: type[models.Model]) -> int:
    """Return the exact count of a small table, else an estimate from the database's statistics.

    SQLite has no such statistics. There the estimate is the span of the primary keys, which is
    too high if rows between the first and the last were deleted.
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
    """Paginator for tables of any size. Filtered rows are counted up to `EXACT_MAX`."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, exact or estimated."""
        rows = self.object_list
        assert isinstance(rows, models.QuerySet)
        return bounded_count(rows) if rows.query.where else estimated_count(rows.model)

    @cached_property
    def num_pages(self) -> int:
        """Return the number of pages, at most `PAGES_MAX`; search finds older rows."""
        return min(PAGES_MAX, super().num_pages)
