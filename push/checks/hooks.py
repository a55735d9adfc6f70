"""Checks of the hooks: URLs of the user's backend, and the secrets that sign requests to it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from django.core import checks
from django.core.checks import CheckMessage, Error, register

from imgo_site.conf import ImgoSettings, conf
from push.checks.reading import with_settings
from push.checks.security import LOCAL_NAMES
from push.hooks.client import Hook
from push.hooks.signature import secret_bytes

ADVICE = (
    "Set IMGO_HOOK_SECRETS to what this prints: python -c 'import base64, secrets; "
    'print("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())\''
)
# The dotted path that a hook replaces.
REPLACED = {
    Hook.AUTHENTICATE: "AUTHENTICATOR",
    Hook.AUTHORIZE_ROOM: "ROOM_AUTHORIZER",
    Hook.RECEIVE: "RECEIVER",
}


@register
@with_settings
def check_hooks() -> Iterator[CheckMessage]:
    """E047: a hook's URL, secret or time that cannot work; W038: a hook over plain HTTP."""
    used = [hook for hook in Hook if hook.url]
    for hook in used:
        yield from _check_url(hook)
    if used and not conf.HOOK_SECRETS:
        yield _error(
            f"{used[0].name}_URL is set, and HOOK_SECRETS is empty: your backend could not tell "
            "imgo's requests from forged ones.",
            ADVICE,
        )
    for number, secret in enumerate(conf.HOOK_SECRETS, 1):
        try:
            secret_bytes(secret)
        except ValueError as error:  # it does not contain the secret
            yield _error(f"Secret {number} of HOOK_SECRETS {error}.", ADVICE)
    if Hook.AUTHENTICATE.url and conf.HOOK_TIMEOUT >= conf.HANDSHAKE_TIMEOUT:
        yield _error(
            f"HOOK_TIMEOUT is {conf.HOOK_TIMEOUT:g} s, and HANDSHAKE_TIMEOUT is "
            f"{conf.HANDSHAKE_TIMEOUT:g} s: a slow backend would look like a silent client.",
            "Make HOOK_TIMEOUT shorter.",
        )


def _check_url(hook: Hook) -> Iterator[CheckMessage]:
    name = f"{hook.name}_URL"
    try:
        parts = urlsplit(hook.url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_usable = is_usable and parts.port != 0 and parts.username is None
    except ValueError:
        is_usable = False
    if not is_usable:
        yield _error(
            f"{name} is no URL that can be called.",
            "Use a URL such as https://shop.example.com/imgo/hook/, without user and password.",
        )
    elif parts.scheme == "http" and parts.hostname not in LOCAL_NAMES:
        yield checks.Warning(
            f"{name} begins with http://: tokens of your clients travel without encryption.",
            hint="Use https://, unless the network between imgo and your backend is private.",
            id="imgo.W038",
        )
    setting = REPLACED[hook]
    if getattr(conf, setting) != getattr(ImgoSettings, setting):
        yield _error(
            f"{name} and {setting} are both set: only one of them can decide.",
            "Remove one of them.",
        )


def _error(text: str, hint: str) -> CheckMessage:
    return Error(text, hint=hint, id="imgo.E047")
