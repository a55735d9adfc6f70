"""View that gives the client on a page the token of the signed-in user."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from imgo_client.django.conf import options
from imgo_client.django.tokens import token_for


def _token(request: HttpRequest) -> HttpResponse:
    """Return a token for the signed-in user. Only pages of this site may request it.

    The check of the origin replaces a CSRF token. The view changes nothing, and a script cannot
    read the cookie of the CSRF token in projects with CSRF_COOKIE_HTTPONLY or CSRF_USE_SESSIONS.
    """
    if not is_same_origin(request):
        return JsonResponse({"error": "Only pages of this site may request a token."}, status=403)
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or not user.is_active:
        return JsonResponse({"error": "Nobody is signed in."}, status=401)
    return JsonResponse({"token": token_for(user), "expires_in": options().TOKEN_TTL})


# A redirect by LoginRequiredMiddleware would be followed to a page instead of a token.
_token.login_required = False  # type: ignore[attr-defined]
token = require_POST(csrf_exempt(never_cache(_token)))


def is_same_origin(request: HttpRequest) -> bool:
    """Return whether a page of this site has sent the request.

    Browsers say so in `Sec-Fetch-Site`, if the site has TLS or is local, and in `Origin`.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    # The scheme is not compared: behind a proxy it may be unknown here.
    return origin is not None and urlsplit(origin).netloc == request.get_host()
