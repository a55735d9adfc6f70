"""`{% imgo %}`: the client on a page, for the user who is signed in."""

import json
from collections.abc import Iterable
from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString

from imgo_site.conf import conf
from imgo_site.names import check_name
from push.routing import websocket_path

register = template.Library()


@register.simple_tag(takes_context=True)
def imgo(
    context: dict[str, Any],
    *,
    rooms: str | Iterable[str] = (),
    token: str = "",
    url: str = "",
    nonce: str = "",
) -> SafeString:
    """The element that loads push/page.js, which connects and tells of messages in DOM events.

    `rooms`: a list, or names with commas between them. `token`: instead of the session cookie.
    `url`: of another server; it needs a token. `nonce`: for a policy that asks for one. Empty for
    a visitor who is not signed in, without a token. Raises `BadRequest` for a room that is no
    name, `ImproperlyConfigured` where the cookie is not accepted.
    """
    user = getattr(context.get("request"), "user", None) or context.get("user")
    is_signed_in = bool(user and user.is_authenticated)
    if not (token or is_signed_in):
        return SafeString("")
    if not (token or conf.SESSION_AUTH):
        raise ImproperlyConfigured("SESSION_AUTH is off: {% imgo %} needs a token.")
    if isinstance(rooms, str):
        rooms = [name.strip() for name in rooms.split(",") if name.strip()]
    data = {
        "url": url or websocket_path(),
        # In one tab users take turns: what one has seen must not be hidden from the next.
        "name": str(import_string(conf.SESSION_KEY)(user)) if is_signed_in else "",
        "token": token,
        "rooms": json.dumps([check_name(room, "room") for room in rooms]),
    }
    return format_html(
        '<script type="module" src="{}"{}{}></script>',
        static("push/page.js"),
        format_html_join("", ' data-imgo-{}="{}"', ((k, v) for k, v in data.items() if v)),
        format_html(' nonce="{}"', nonce) if nonce else "",
    )
