"""A page that is asked for with a value that no column can have is a mistake, not a fault."""

from collections.abc import Callable

from django.db import DataError
from django.http import HttpRequest, HttpResponse

GetResponse = Callable[[HttpRequest], HttpResponse]


class ImpossibleValues:
    """Answers 400 where a page is asked for with a value that no column of the database can have.

    The admin hands what stands in an address to the database as it is; Postgres takes no NUL, for
    example. The API has checked its values before, and makes its own answers.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The view's answer."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Django calls it with what a view has raised. None: somebody else's affair."""
        if request.method not in {"GET", "HEAD"} or not isinstance(error, DataError):
            return None
        text = "The address asks for something that cannot be. Correct it, or start at /.\n"
        return HttpResponse(text, status=400, content_type="text/plain; charset=utf-8")
