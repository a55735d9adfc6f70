"""Views of the demo page, and of the icon for pages that name none."""

from django.contrib.auth.decorators import login_not_required
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import split_domain_port
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import reverse
from django.views.decorators.csrf import csrf_protect, ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from imgo_site import addresses
from imgo_site.direct_requests import is_direct
from imgo_site.errors import Forbidden, ImgoError, NotFound
from push.accept.accept import accept_push
from push.api.problems import problem_response
from push.api.schemas import PushRequest, read, utf8
from push.demo_page import demo as demo_data
from push.pages import render
from push.routing import websocket_path

# Only our own files, and no framing. `ws:` is named because 'self' does not include it in every
# browser.
CSP = "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'"
LOOPBACK = frozenset({"127.0.0.1", "::1"})
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
PEER = addresses.PEER


@login_not_required
@require_GET
def favicon(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    """Redirect to the icon.

    Browsers request this path for pages that name no icon: the admin, the API's pages, plain text.
    """
    return redirect(static("push/icon.svg"))


def _check_demo(request: HttpRequest) -> None:
    """Raise `NotFound` if the demo is off, `Forbidden` if the browser is not on this machine.

    The demo shows secrets and pushes without an API key.
    """
    if not demo_data.is_on():
        raise NotFound("The demo is off; the API is under /api/v1/.")
    if not _is_local(request):
        raise Forbidden(
            "The demo is for a browser on the same machine, without a proxy in between: open it "
            "as http://localhost and the server's port."
        )


def _is_local(request: HttpRequest) -> bool:
    """Return whether the request comes from a browser on this machine, and through no proxy.

    A proxy may have this machine's address. So a proxy's headers, or a host that is not this
    machine, also count as a proxy.
    """
    meta = request.META
    if not {meta.get(name, meta.get("REMOTE_ADDR")) for name in ("REMOTE_ADDR", PEER)} <= LOOPBACK:
        return False
    if not is_direct(request):
        return False
    host = split_domain_port(request.get_host())[0]
    return host in LOCAL_HOSTS


@login_not_required
@require_GET
@ensure_csrf_cookie
def demo(request: HttpRequest) -> HttpResponse:
    """Show two browser clients, a form to push, and the messages that arrive."""
    try:
        _check_demo(request)
    except ImgoError as error:
        return HttpResponse(
            f"imgo. {error.message}\n", status=error.status, content_type="text/plain"
        )
    demo = demo_data.prepare()
    config = {
        "clients": [{"key": key, "token": token} for key, token in demo["tokens"].items()],
        "room": demo_data.ROOM,
        "push_url": reverse("imgo:demo-push"),
    }
    context = {
        "ws_path": websocket_path(),
        "demo_config": config,
        "api_key_hint": "This API key is the demo's. Your own: manage.py apikey NAME",
        "curl": demo_data.curl_line(demo["api_key"], request.build_absolute_uri("/")[:-1], demo),
        "admin_url": reverse("admin:index"),
    }
    response = render(request, "demo.html", context)
    response["Cache-Control"] = "no-store"
    response["Content-Security-Policy"] = CSP
    return response


@login_not_required
@non_atomic_requests
@csrf_protect
@require_POST
def demo_push(request: HttpRequest) -> JsonResponse:
    """Accept a push from the demo page's form; Django's CSRF token proves that it is ours."""
    try:
        _check_demo(request)
        push = read(utf8(request.body), PushRequest).as_push()
        if set(push.keys) - set(demo_data.secrets_of_demo()["tokens"]) or push.room not in {
            "",
            demo_data.ROOM,
        }:
            raise Forbidden("The demo pushes to its own keys and room alone.")
        return JsonResponse({"id": str(accept_push(push, "demo"))}, status=202)
    except ImgoError as error:
        return problem_response(error)
