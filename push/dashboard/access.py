"""Access to the dashboard's pages, and their error answers. No page fails with a traceback.

The guard also covers the query of the user, because the database may be unavailable then.
"""

import logging
from collections.abc import Callable
from functools import wraps

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.csrf import csrf_failure as project_csrf_failure
from django.views.decorators.csrf import csrf_protect

from accounts.staff import may_watch
from imgo_site.errors import Forbidden, ImgoError, NotAuthenticated, Unavailable
from push.api.problems import problem_response
from push.pages import render

logger = logging.getLogger(__name__)

OUR_PAGES = frozenset({"imgo", "admin"})  # namespaces of URLs

View = Callable[..., HttpResponse]

# Only our own files, no inline script or style, no framing. `ws:` is named because 'self' does not
# include it in every browser.
CSP = (
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'"
)


def for_operators(view: View) -> View:
    """Guard the view of a page: users who are not signed in are redirected to the admin's login."""
    return _guarded(view, _error_page)


def data_for_operators(view: View) -> View:
    """Guard the view of data for scripts: errors are problem details, without redirects."""
    return _guarded(view, _error_data)


def _guarded(view: View, fail: Callable[[HttpRequest, ImgoError], HttpResponse]) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        try:
            _check(request)
            response = view(request, *args, **kwargs)
        except ImgoError as error:
            response = fail(request, error)
        except DatabaseError as error:
            logger.error("the database failed for the dashboard: %s", error)
            response = fail(
                request,
                Unavailable("The database cannot be reached; sessions that are open stay open."),
            )
        response["Content-Security-Policy"] = CSP
        response["Cache-Control"] = "no-store"
        return response

    return login_not_required(csrf_protect(guarded))


def _check(request: HttpRequest) -> None:
    """Raise `NotAuthenticated` for users who are not staff, `Forbidden` without the permission."""
    user = request.user
    if not (user.is_active and getattr(user, "is_staff", False)):
        raise NotAuthenticated("Sign in as a member of the staff.")
    if not may_watch(user):
        raise Forbidden(
            "You need the permission 'Can look at the dashboard' (push.view_dashboard)."
        )


def require(request: HttpRequest, permission: str) -> None:
    """Raise `Forbidden` unless the user has a permission; a superuser has all."""
    if not request.user.has_perm(permission):
        raise Forbidden(f"You need the permission {permission} for that.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the answer to a form from before the browser's login, or from another site.

    Pages that are not ours get the project's own answer.
    """
    match = request.resolver_match
    if match is None or not OUR_PAGES & set(match.app_names):
        return project_csrf_failure(request, reason)
    error = Forbidden(f"{reason} Go back, load the page again, and repeat.")
    return render(request, "dashboard/error.html", {"error": error}, status=error.status)


def _error_page(request: HttpRequest, error: ImgoError) -> HttpResponse:
    if isinstance(error, NotAuthenticated):
        # The login must lead back to a page, not to the address of a form.
        path = request.get_full_path() if request.method == "GET" else reverse("imgo:dashboard")
        return redirect_to_login(path, reverse("admin:login"))
    return render(request, "dashboard/error.html", {"error": error}, status=error.status)


def _error_data(request: HttpRequest, error: ImgoError) -> HttpResponse:  # noqa: ARG001
    return problem_response(error)
