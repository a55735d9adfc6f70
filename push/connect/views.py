"""View at the WebSocket's path, for requests that open no WebSocket."""

from django.contrib.auth.decorators import login_not_required
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

NO_UPGRADE = (
    "This is the address of a WebSocket, and the request asks for none: it has no header "
    '"Upgrade: websocket". If the client has sent it, a proxy in between has removed it. The proxy '
    "must pass on Upgrade and Connection over HTTP/1.1: see deploy/nginx.conf. "
    "Without WebSockets there is {path}/events.\n"
)
NO_NODE = (
    "This process serves no WebSockets. A proxy must pass on {path} to the nodes: see "
    "deploy/nginx.conf.\n"
)


@method_decorator([login_not_required, csrf_exempt, non_atomic_requests], name="dispatch")
class NoUpgradeView(View):
    """404 with the reason why no WebSocket was opened.

    Not 426: its answer must have the header Upgrade (RFC 9110, section 15.5.22). HTTP/2 forbids
    this header, and WSGI servers may refuse it.
    """

    body_setting = "MAX_STRAY_BODY"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Answer with the reason."""
        is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        text = (NO_NODE if is_websocket else NO_UPGRADE).format(path=request.path.rstrip("/"))
        return HttpResponse(text, status=404, content_type="text/plain; charset=utf-8")

    post = get
