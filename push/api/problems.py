"""Error answers: problem details (RFC 9457) in our API, imgo's and goim's forms on their paths."""

import logging
from typing import Any

from django.core.exceptions import DisallowedHost, RequestDataTooBig, SuspiciousOperation
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.urls import get_script_prefix
from django.utils.html import escape
from rest_framework import exceptions

from imgo_site.errors import (
    BadRequest,
    Forbidden,
    ImgoError,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    TooLarge,
    TooSlow,
    Unavailable,
)
from imgo_site.prefix import without_prefix
from push.api.answers import UNKNOWN_TYPE, Problem

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = 2  # seconds
EVENTS_PATH = "/sub/events"  # of Server-Sent Events, and of what their clients send

# imgo's return codes.
RET_OK = 1
RET_OK_MESSAGES = 0  # success in the answers of imgo's message store
RET_NO_SERVER = 1001
RET_TOKEN = 65533
RET_PARAMETER = 65534
RET_INTERNAL = 65535

CODE_OK = 0  # goim's code for success; its other codes are negative HTTP statuses


def problem(error: ImgoError) -> Problem:
    """Return the problem details of an error, as a dict."""
    return {
        "type": UNKNOWN_TYPE if isinstance(error, OutcomeUnknown) else "about:blank",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "retry": error.retry,
    }


def as_imgo_error(error: Exception) -> ImgoError | None:
    """Return the error to answer for an exception of a view; None if the exception is a bug."""
    if isinstance(error, ImgoError):
        return error
    if isinstance(error, exceptions.APIException):
        # DRF refuses these requests before it calls a view.
        return _with_status(
            BadRequest(str(error.detail)), error.status_code, str(error.default_code)
        )
    if isinstance(error, RequestDataTooBig | UnreadablePostError | SuspiciousOperation):
        return _of_request(error)
    if isinstance(error, DatabaseError):
        logger.error("the database failed for a request: %s", error)
        return Unavailable("The database cannot be reached.")
    return None


def _of_request(error: Exception) -> ImgoError:
    """Return the error for a request that Django refuses to read."""
    if isinstance(error, RequestDataTooBig):
        return TooLarge(str(error))
    if not isinstance(error, UnreadablePostError):
        return BadRequest(str(error))  # a query with thousands of names
    cause: BaseException | None = error  # Django wraps its own error once more
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return TooSlow("The request's body did not arrive in time.")
        cause = cause.__cause__
    return BadRequest("The request's body ended early, or its chunks are malformed.")


def _with_status(error: ImgoError, status: int, code: str) -> ImgoError:
    error.status, error.code = status, code
    return error


def problem_response(error: ImgoError) -> JsonResponse:
    """Return problem details for an error: JSON, also where successful answers are not JSON."""
    headers = {"Cache-Control": "no-store"}
    return JsonResponse(
        problem(error), status=error.status, content_type=CONTENT_TYPE, headers=headers
    )


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse | None:  # noqa: ARG001
    """DRF's EXCEPTION_HANDLER for our API. Returns None for a bug, which becomes a 500."""
    imgo_error = as_imgo_error(error)
    if imgo_error is None:
        return None
    response = problem_response(imgo_error)
    if imgo_error.status == NotAuthenticated.status:
        response["WWW-Authenticate"] = "Api-Key"
    if imgo_error.retry:
        response["Retry-After"] = str(RETRY_AFTER)
    return response


def ret_of(error: ImgoError) -> int:
    """Return imgo's return code for an error."""
    if isinstance(error, (NotAuthenticated, Forbidden)):
        return RET_TOKEN
    if isinstance(error, NotFound):
        return RET_NO_SERVER
    if isinstance(error, (BadRequest, TooLarge)):
        return RET_PARAMETER
    return RET_INTERNAL


def legacy_response(error: ImgoError) -> JsonResponse:
    """Return imgo's answer to an error, with our HTTP status.

    imgo answered 200 to everything. Old tools read only `ret`.
    """
    return JsonResponse({"ret": ret_of(error), **_unknown(error)}, status=error.status)


def goim_response(error: ImgoError) -> JsonResponse:
    """Return goim's answer to an error, with our HTTP status.

    goim answered 200 to everything. Its callers read `code`.
    """
    answer = {"code": -error.status, "message": error.message, **_unknown(error)}
    return JsonResponse(answer, status=error.status)


def _unknown(error: ImgoError) -> dict[str, str]:
    """Return a member `type` if the push may have been accepted: a blind retry could duplicate it.

    imgo and goim have no such member.
    """
    return {"type": UNKNOWN_TYPE} if isinstance(error, OutcomeUnknown) else {}


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: the answer to a bug. Django has logged its traceback."""
    if request.path_info.startswith("/1/"):
        return legacy_response(ImgoError("internal error"))
    if request.path_info.startswith("/goim/"):
        return goim_response(ImgoError("internal error"))
    error = ImgoError("Something went wrong on our side; it has been logged.")
    error.code = "internal_error"
    return problem_response(error)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: requests refused before any view, such as for a wrong Host header."""
    error = as_imgo_error(exception) or BadRequest("The request cannot be understood.")
    if isinstance(exception, DisallowedHost):
        error = BadRequest("This server does not answer to this host: see DJANGO_ALLOWED_HOSTS.")
        if request.path.startswith("/1/"):
            # imgo answered any host, so operators of old tools need to see the reason.
            body = {"ret": ret_of(error), "message": error.message}
            return JsonResponse(body, status=error.status)
    return error_response_at(request.path, error)


def error_response_at(path: str, error: ImgoError) -> HttpResponse:
    """Return the answer to an error in the form of the API that `path` belongs to."""
    path = without_prefix(path)
    if path.startswith("/1/"):
        return legacy_response(error)
    if path.startswith("/goim/"):
        return goim_response(error)
    if path.startswith(("/api/", EVENTS_PATH)):
        return problem_response(error)
    return HttpResponse(f"{error.message}\n", status=error.status, content_type="text/plain")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    """Answer a path that does not exist; a project names this as its `handler404`."""
    path = request.path_info
    if path.startswith("/1/"):
        return JsonResponse({"ret": RET_PARAMETER}, status=404)
    error = NotFound(f"There is nothing at {request.path}.")
    if path.startswith("/goim/"):
        return goim_response(error)
    if path.startswith(("/api/", EVENTS_PATH)):
        return problem_response(error)
    return HttpResponse(
        "<!doctype html><title>Not found</title><p>There is nothing here. "
        f"<a href='{escape(get_script_prefix())}'>Start</a>.",
        status=404,
    )
