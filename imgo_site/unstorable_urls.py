"""Middleware for URLs with values that no database column can store: a 400 and no 500."""

from collections.abc import Callable

from django.db import DataError
from django.http import HttpRequest, HttpResponse

GetResponse = Callable[[HttpRequest], HttpResponse]


class ImpossibleValues:
    """Middleware that answers 400 if the URL of a page has a value that no column can store.

    The admin passes values of the URL to the database unchecked; Postgres refuses a NUL, for
    example. The API checks its values itself and has its own error responses.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Return the view's response."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return a 400 for a `DataError` of a GET or HEAD; None leaves the error to others."""
        if request.method not in {"GET", "HEAD"} or not isinstance(error, DataError):
            return None
        text = "The address asks for something that cannot be. Correct it, or start at /.\n"
        return HttpResponse(text, status=400, content_type="text/plain; charset=utf-8")
