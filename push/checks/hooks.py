"""Checks of the hooks: URLs of the user's backend, and the secrets that sign requests to it."""

from collections.abc import Iterator

from django.core import checks
from django.core.checks import CheckMessage, Error, register

from imgo_site.conf import ImgoSettings, conf
from push.checks.reading import with_settings
from push.checks.security import sends_in_the_clear
from push.hooks.client import Hook
from push.hooks.signature import HOW_TO_MAKE, secret_bytes
from push.hooks.urls import can_be_called

ADVICE = f"Set IMGO_HOOK_SECRETS to what this prints: {HOW_TO_MAKE}"
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
    if not can_be_called(hook.url):
        yield _error(
            f"{name} is no URL that can be called.",
            "Use a URL such as https://shop.example.com/imgo/hook/, without user and password.",
        )
    elif sends_in_the_clear(hook.url):
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
