"""What admin pages of tables with millions of rows have in common: nothing reads all of one."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from imgo_site.estimates import EstimatingPaginator
from imgo_site.names import INT64_MAX


class LargeTableAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Newest first, found by exact values of indexed columns, counted about."""

    # Columns with an index, text or number. Django's own `=name` compares numbers as text, and
    # text in upper case: neither can use an index.
    search_exact: tuple[str, ...] = ()

    paginator = EstimatingPaginator
    show_full_result_count = False
    sortable_by = ()  # a column without an index would be sorted as a whole
    ordering = ("-pk",)
    list_per_page = 50

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:  # noqa: ARG002
        """Non-empty shows the search field."""
        return self.search_exact

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002
        queryset: "QuerySet[Any]",
        search_term: str,
    ) -> "tuple[QuerySet[Any], bool]":
        """The rows where one of `search_exact` is just that."""
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = Q()
        for name in self.search_exact:
            if not _is_number(self.model, name):
                wanted |= Q(**{name: term})
            elif term.isascii() and term.isdigit() and int(term) <= INT64_MAX:
                wanted |= Q(**{name: int(term)})
        return (queryset.filter(wanted) if wanted else queryset.none()), False


def _is_number(model: type[Model], name: str) -> bool:
    field: Any = model._meta.get_field(name)
    return (
        "Integer" in field.get_internal_type()
        or "Auto" in field.get_internal_type()
        or (field.is_relation)
    )


class ReadOnlyAdmin(LargeTableAdmin):
    """Looked at here, changed by other means."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """Nobody adds."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Nobody changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Nobody deletes."""
        return False
