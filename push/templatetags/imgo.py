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

TRANSPORTS = ("websocket", "sse")
EXAMPLES = {"rooms": "lobby,news", "transports": "websocket,sse"}


@register.simple_tag(takes_context=True)
def imgo(
    context: dict[str, Any],
    *,
    rooms: str | Iterable[str] = (),
    token: str = "",
    url: str = "",
    share: bool | str = False,
    transports: str | Iterable[str] = (),
    nonce: str = "",
) -> SafeString:
    """The element that loads push/page.js, which connects and tells of messages in DOM events.

    `rooms`: a list, or names with commas between them. `token`: instead of the session cookie.
    `url`: of another server; it needs a token. `nonce`: for a policy that asks for one.
    `share`: True: all tabs of this user have one connection. A text stands for another user, of a
    token. `transports`: "websocket" and "sse", the preferred one first; empty: the client's choice.

    Empty for a visitor who is not signed in, without a token. Raises `BadRequest` for a room that
    is no name, `ImproperlyConfigured` where the cookie is not accepted, and for a mistake in
    `rooms`, `share` or `transports`.
    """
    user = getattr(context.get("request"), "user", None) or context.get("user")
    is_signed_in = bool(user and user.is_authenticated)
    if not (token or is_signed_in):
        return SafeString("")
    if not (token or conf.SESSION_AUTH):
        raise ImproperlyConfigured("SESSION_AUTH is off: {% imgo %} needs a token.")
    # In one tab users take turns: what one has seen must not be hidden from the next.
    name = str(import_string(conf.SESSION_KEY)(user)) if is_signed_in else ""
    data = {
        "url": url or websocket_path(),
        "name": name,
        "token": token,
        "rooms": json.dumps([check_name(room, "room") for room in _names("rooms", rooms)]),
        "share": _share_of(share, name),
        "transports": ",".join(_transports_of(transports)),
    }
    return format_html(
        '<script type="module" src="{}"{}{}></script>',
        static("push/page.js"),
        format_html_join("", ' data-imgo-{}="{}"', ((k, v) for k, v in data.items() if v)),
        format_html(' nonce="{}"', nonce) if nonce else "",
    )


def _names(argument: str, names: object) -> list[Any]:
    """Return a list, or the names in a text with commas between them.

    Raises `ImproperlyConfigured` for anything else. `argument`: its name, for the error.
    """
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    if not isinstance(names, Iterable) or isinstance(names, bytes):
        raise ImproperlyConfigured(
            f'{argument} must be a list, or a text such as {argument}="{EXAMPLES[argument]}", '
            f"not {names!r}."
        )
    return list(names)


def _share_of(share: object, name: str) -> str:
    """Return the text that stands for the user whose tabs share a connection; "" for none."""
    if share is None or share is False:
        return ""
    text = name if share is True else share
    if not isinstance(text, str) or not text:
        raise ImproperlyConfigured(
            "share=True is for a user who is signed in. With a token alone, give a text that "
            f"stands for its user, not {share!r}."
        )
    return text


def _transports_of(transports: object) -> list[str]:
    """Return the names of the transports; none if the argument is empty."""
    names = _names("transports", transports)
    for name in names or ([transports] if transports else []):
        if name not in TRANSPORTS:
            raise ImproperlyConfigured(
                f"transports are {' and '.join(TRANSPORTS)}, not {name!r}. Write "
                f'transports="{EXAMPLES["transports"]}", or one of them.'
            )
    return names
