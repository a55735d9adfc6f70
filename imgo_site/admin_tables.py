"""Base classes of admin pages for tables with millions of rows; no query reads a whole table."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from imgo_site.estimates import PAGES_MAX, EstimatingPaginator, bounded_count
from imgo_site.names import INT64_MAX
from imgo_site.replica import current_source, from_replica

ACTION_MAX = 500  # rows of one action: each costs work and a row in the admin's log


class LargeTableList(ChangeList):
    """List of rows in the admin's fixed order, which an index provides."""

    def get_ordering(self, request: HttpRequest, queryset: "QuerySet[Any]") -> list[Any]:  # noqa: ARG002
        """Return the admin's order. Django's `?o=` sorts even by columns that are not sortable."""
        return list(self.model_admin.get_ordering(request))


class CarefulAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Base admin that reports mistakes in URLs and forms on which Django's own admin fails."""

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return the row of a page; treat an empty `?_to_field=` as absent."""
        return super().get_object(request, object_id, from_field or None)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Return the list. Warn about an invalid filter, for which Django redirects silently."""
        if ERROR_FLAG in request.GET:
            self.message_user(request, "There is no such filter: this is all.", messages.WARNING)
            return HttpResponseRedirect(request.path)
        return super().changelist_view(request, extra_context)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:  # noqa: ARG002
        """Return no initial data from the URL: Django's time field fails for other texts."""
        return {}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:  # noqa: ARG002
        """Return True for a filter that the page offers. Django would allow every column.

        Raises `IncorrectLookupParameters` for other filters.
        """
        if lookup not in self.lookups(request):
            raise IncorrectLookupParameters
        return True

    def lookups(self, request: HttpRequest) -> set[str]:
        """Return the names of URL parameters that the page's filters use."""
        filters = self.get_list_filter(request)
        names = {item for item in filters if isinstance(item, str)}
        parameters = {getattr(item, "parameter_name", "") for item in filters}
        return parameters | {f"{name}__{end}" for name in names for end in ("exact", "id__exact")}

    def response_action(  # type: ignore[override]  # the stubs know of a later Django's argument
        self, request: HttpRequest, queryset: "QuerySet[Any]"
    ) -> HttpResponse | None:
        """Run the action on the selected rows; refuse ids that no row can have."""
        if any(_number(text) is None for text in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            return self._refused(request, "There are no such rows.")
        response: HttpResponse | None = super().response_action(request, queryset)
        return response

    def _refused(self, request: HttpRequest, text: str) -> HttpResponse:
        self.message_user(request, text, messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())


class LargeTableAdmin(CarefulAdmin):
    """Base admin of a large table: newest rows first, exact search by index, estimated counts."""

    # Indexed column, text or number → the order of its index; () for a unique column. Django's
    # own `=name` compares numbers as text, and text in upper case; neither can use an index.
    search_exact: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    paginator = EstimatingPaginator
    show_facets = admin.ShowFacets.NEVER  # facets count all rows of each choice
    show_full_result_count = False
    sortable_by = ()  # the database would sort all rows for a column without an index
    ordering = ("-pk",)
    list_per_page = 50

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ARG002
        """Return the list that never counts all rows, for every request."""
        return LargeTableList

    def lookups(self, request: HttpRequest) -> set[str]:
        """Return the parameters of the page's filters, and those of indexed columns."""
        columns = {f"{name}{end}" for name in self.search_exact for end in ("", "__exact")}
        return super().lookups(request) | columns

    def response_action(  # type: ignore[override]  # the stubs know of a later Django's argument
        self, request: HttpRequest, queryset: "QuerySet[Any]"
    ) -> HttpResponse | None:
        """Run the action, but refuse more than `ACTION_MAX` rows of "select all"."""
        is_all = request.POST.get("select_across", "0") != "0"
        if is_all and bounded_count(queryset) > ACTION_MAX:
            text = f"That is more than {ACTION_MAX} rows at once; nothing was done."
            return self._refused(request, text)
        return super().response_action(request, queryset)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:  # noqa: ARG002
        """Return the searched columns; Django shows the search field if there are any."""
        return tuple(self.search_exact)

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002
        queryset: "QuerySet[Any]",
        search_term: str,
    ) -> "tuple[QuerySet[Any], bool]":
        """Return the rows in which a column of `search_exact` equals the search term."""
        term = search_term.strip()
        if not term:
            return queryset, False
        matches = []
        for name, order, value in self._conditions(search_term, term):
            if order:
                # As a range, in the order of the index. For `name = value` with many rows, the
                # database may scan another index until it has found the first fifty.
                rows = queryset.filter(**{f"{name}__gte": value, f"{name}__lte": value})
                matches.append(rows.order_by(*order))
            else:
                matches.append(queryset.filter(**{name: value}))
        # One query for each index: for `a = x OR b = x` the database may read the whole table.
        matches = [rows for rows in matches if rows.values("pk")[:1]] or matches[:1]
        if len(matches) == 1:
            return matches[0], False
        rows_max = PAGES_MAX * self.list_per_page
        ids = {pk for rows in matches for pk in rows.values_list("pk", flat=True)[:rows_max]}
        return queryset.filter(pk__in=ids), False

    def _conditions(self, *terms: str) -> Iterator[tuple[str, tuple[str, ...], int | str]]:
        """Yield (column, order, value) for each column and each distinct term that it can hold.

        The terms are the text as typed and stripped: blanks may belong to it or were pasted.
        """
        for name, order in self.search_exact.items():
            is_number = _is_number(self.model, name)
            for value in dict.fromkeys(_number(term) if is_number else term for term in terms):
                if value is not None:
                    yield name, order, value


def _number(text: str) -> int | None:
    """Return a text as an id; None if no row can have it."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(INT64_MAX))
    return int(text) if is_number and int(text) <= INT64_MAX else None


def _is_number(model: type[Model], name: str) -> bool:
    field: Any = model._meta.get_field(name)
    return (
        "Integer" in field.get_internal_type()
        or "Auto" in field.get_internal_type()
        or (field.is_relation)
    )


class ReadOnlyAdmin(LargeTableAdmin):
    """Base admin of a table that the admin only displays.

    `list_title`: the heading of its list; Django's own is made for one row, "Select … to view".
    """

    list_title = ""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Return the list, with its heading, read from a replica if there is one."""
        title = {"title": self.list_title} if self.list_title else {}
        context = {**title, **(extra_context or {})}
        if request.method == "POST":  # an action, which needs the rows that it changes
            return super().changelist_view(request, context)
        return self._list(request, context)

    @from_replica
    def _list(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        context = {**context, "subtitle": current_source().sentence or None}
        response = super().changelist_view(request, context)
        # The page's queries run while it is rendered.
        return response.render() if isinstance(response, TemplateResponse) else response

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        """Return False: no user may add rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Return False: no user may change rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Return False: no user may delete rows."""
        return False
