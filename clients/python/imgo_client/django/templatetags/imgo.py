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

TRANSPORTS = ("websocket", "sse")
EXAMPLES = {"rooms": "lobby,news", "transports": "websocket,sse"}


@register.simple_tag(takes_context=True)
def imgo(
    context: dict[str, Any],
    *,
    rooms: str | Iterable[str] = (),
    share: bool = False,
    transports: str | Iterable[str] = (),
    nonce: str = "",
) -> SafeString:
    """Return the element that loads imgo_client/page.js, which connects as the signed-in user.

    Messages become DOM events such as `imgo:message`. The page holds no token, so it may be
    cached by the browser; the script requests one for each connection.

    `rooms`: a list, or names with commas between them.
    `share`: True: all tabs of the user have one connection.
    `transports`: "websocket" and "sse", the preferred one first; empty: the client's choice.
    `nonce`: for a content security policy that requires one.

    Returns "" for a visitor who is not signed in. Raises ValueError for an argument that is none of
    these, such as another transport.
    """
    user = getattr(context.get("request"), "user", None) or context.get("user")
    if user is None or not user.is_authenticated:
        return mark_safe("")
    opts, key = options(), key_of(user)
    data = {
        "script": opts.script_url,
        "socket": opts.socket_url,
        "token-url": reverse("imgo_client:token"),
        # In one tab users take turns: what one has seen must not be hidden from the next.
        "name": key,
        "rooms": json.dumps(_names("rooms", rooms)),
        "share": key if _is_shared(share) else "",
        "transports": ",".join(_transports_of(transports)),
    }
    return format_html(
        '<script type="module" src="{}"{}{}></script>',
        static("imgo_client/page.js"),
        format_html_join("", ' data-imgo-{}="{}"', ((k, v) for k, v in data.items() if v)),
        format_html(' nonce="{}"', nonce) if nonce else "",
    )


def _names(argument: str, names: object) -> list[Any]:
    """Return a list, or the names in a text with commas between them.

    Raises ValueError for anything else. `argument`: its name, for the error.
    """
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    if not isinstance(names, Iterable) or isinstance(names, bytes):
        raise ValueError(
            f'{argument} must be a list, or a text such as {argument}="{EXAMPLES[argument]}", '
            f"not {names!r}"
        )
    return list(names)


def _is_shared(share: object) -> bool:
    """Return whether tabs share a connection. Raises ValueError unless that is a truth value."""
    if share is None or isinstance(share, bool):
        return bool(share)
    raise ValueError(f"share must be True or False, not {share!r}: write share=True")


def _transports_of(transports: object) -> list[str]:
    """Return the names of the transports; none if the argument is empty."""
    names = _names("transports", transports)
    for name in names or ([transports] if transports else []):
        if name not in TRANSPORTS:
            raise ValueError(
                f"transports are {' and '.join(TRANSPORTS)}, not {name!r}: write "
                f'transports="{EXAMPLES["transports"]}", or one of them'
            )
    return names
