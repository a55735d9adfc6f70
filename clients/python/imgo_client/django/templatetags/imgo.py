"""`{% imgo %}`: the client on a page, for the user who is signed in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from imgo_client.django.conf import options
from imgo_client.django.tokens import key_of

register = template.Library()


@register.simple_tag(takes_context=True)
def imgo(
    context: dict[str, Any], *, rooms: str | Iterable[str] = (), nonce: str = ""
) -> SafeString:
    """Return the element that loads imgo_client/page.js, which connects as the signed-in user.

    Messages become DOM events such as `imgo:message`. The page holds no token, so it may be
    cached by the browser; the script requests one for each connection.

    `rooms`: a list, or names with commas between them.
    `nonce`: for a content security policy that requires one.

    Returns "" for a visitor who is not signed in.
    """
    user = getattr(context.get("request"), "user", None) or context.get("user")
    if user is None or not user.is_authenticated:
        return mark_safe("")
    if isinstance(rooms, str):
        rooms = [name.strip() for name in rooms.split(",") if name.strip()]
    found = options()
    data = {
        "script": found.script_url,
        "socket": found.socket_url,
        "token-url": reverse("imgo_client:token"),
        # In one tab users take turns: what one has seen must not be hidden from the next.
        "name": key_of(user),
        "rooms": json.dumps(list(rooms)),
    }
    return format_html(
        '<script type="module" src="{}"{}{}></script>',
        static("imgo_client/page.js"),
        format_html_join("", ' data-imgo-{}="{}"', data.items()),
        format_html(' nonce="{}"', nonce) if nonce else "",
    )
