"""What admin pages of tables with millions of rows have in common: nothing reads all of one."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from imgo_site.estimates import PAGES_MAX, EstimatingPaginator, bounded_count
from imgo_site.names import INT64_MAX

ACTION_MAX = 500  # rows that an action takes at once: each is work, and a line in the log


class LargeTableList(ChangeList):
    """The rows in the one order that costs nothing, whatever an address asks for."""

    def get_ordering(self, request: HttpRequest, queryset: "QuerySet[Any]") -> list[Any]:  # noqa: ARG002
        """The admin's own: `?o=` sorts even by columns that cannot be clicked."""
        return list(self.model_admin.get_ordering(request))


class CarefulAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Tells mistakes in addresses and forms that Django's own admin fails at."""

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """The row of a page; an empty `?_to_field=` means nothing."""
        return super().get_object(request, object_id, from_field or None)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The list; Django comes back here without a word when an address asks for nonsense."""
        if ERROR_FLAG in request.GET:
            self.message_user(request, "There is no such filter: this is all.", messages.WARNING)
            return HttpResponseRedirect(request.path)
        return super().changelist_view(request, extra_context)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:  # noqa: ARG002
        """An address fills in nothing: Django's field of a time fails at a text."""
        return {}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:  # noqa: ARG002
        """What an address may filter by: what the page offers. Django allows every column."""
        if lookup not in self.lookups(request):
            raise IncorrectLookupParameters
        return True

    def lookups(self, request: HttpRequest) -> set[str]:
        """The names in addresses that its filters use."""
        filters = self.get_list_filter(request)
        names = {item for item in filters if isinstance(item, str)}
        found = {getattr(item, "parameter_name", "") for item in filters}
        return found | {f"{name}__{end}" for name in names for end in ("exact", "id__exact")}

    def response_action(  # type: ignore[override]  # the stubs know of a later Django's argument
        self, request: HttpRequest, queryset: "QuerySet[Any]"
    ) -> HttpResponse | None:
        """Do what was asked for with the selected rows, if there can be such."""
        if any(_number(text) is None for text in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            return self._refused(request, "There are no such rows.")
        response: HttpResponse | None = super().response_action(request, queryset)
        return response

    def _refused(self, request: HttpRequest, text: str) -> HttpResponse:
        self.message_user(request, text, messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())


class LargeTableAdmin(CarefulAdmin):
    """Newest first, found by exact values of indexed columns, counted about."""

    # Columns with an index, text or number; where they are not unique, with the order that the
    # index gives. Django's own `=name` compares numbers as text, and text in upper case: neither
    # can use an index.
    search_exact: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    paginator = EstimatingPaginator
    show_facets = admin.ShowFacets.NEVER  # they count all rows of each choice
    show_full_result_count = False
    sortable_by = ()  # a column without an index would be sorted as a whole
    ordering = ("-pk",)
    list_per_page = 50

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ARG002
        """See `LargeTableList`."""
        return LargeTableList

    def lookups(self, request: HttpRequest) -> set[str]:
        """Those of its filters, and columns with an index."""
        columns = {f"{name}{end}" for name in self.search_exact for end in ("", "__exact")}
        return super().lookups(request) | columns

    def response_action(  # type: ignore[override]  # the stubs know of a later Django's argument
        self, request: HttpRequest, queryset: "QuerySet[Any]"
    ) -> HttpResponse | None:
        """Not with millions of rows in one request."""
        is_all = request.POST.get("select_across", "0") != "0"
        if is_all and bounded_count(queryset) > ACTION_MAX:
            text = f"That is more than {ACTION_MAX} rows at once; nothing was done."
            return self._refused(request, text)
        return super().response_action(request, queryset)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:  # noqa: ARG002
        """Non-empty shows the search field."""
        return tuple(self.search_exact)

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
        found = []
        for name, order, value in self._wanted(search_term, term):
            if order:
                # As a range, in the order of the index: for many rows with `name = value` the
                # database rather walks along another one until it has met the first fifty.
                rows = queryset.filter(**{f"{name}__gte": value, f"{name}__lte": value})
                found.append(rows.order_by(*order))
            else:
                found.append(queryset.filter(**{name: value}))
        # Each by its own index: for `a = x OR b = x` the database may read everything.
        found = [rows for rows in found if rows.values("pk")[:1]] or found[:1]
        if len(found) == 1:
            return found[0], False
        shown = PAGES_MAX * self.list_per_page
        ids = {pk for rows in found for pk in rows.values_list("pk", flat=True)[:shown]}
        return queryset.filter(pk__in=ids), False

    def _wanted(self, *terms: str) -> Iterator[tuple[str, tuple[str, ...], int | str]]:
        """Columns, orders and values: blanks belong to a text, or came along when it was pasted."""
        for name, order in self.search_exact.items():
            is_number = _is_number(self.model, name)
            for value in dict.fromkeys(_number(term) if is_number else term for term in terms):
                if value is not None:
                    yield name, order, value


def _number(text: str) -> int | None:
    """The id that a text is, if any row can have it."""
    is_one = text.isascii() and text.isdigit() and len(text) <= len(str(INT64_MAX))
    return int(text) if is_one and int(text) <= INT64_MAX else None


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
