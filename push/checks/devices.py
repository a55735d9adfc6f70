"""Checks of the providers that take notifications to devices."""

from collections.abc import Iterator
from importlib.util import find_spec

from django.core.checks import CheckMessage, Error, register

from imgo_site.conf import conf
from push.checks.reading import with_settings
from push.devices.addresses import configured
from push.devices.providers.select import problems

PACKAGES = ("httpcore", "h2", "anyio")


@register
@with_settings
def check_devices() -> Iterator[CheckMessage]:
    """E054: a provider that cannot work; E055: one whose packages are missing."""
    names = configured()
    for setting, problem in problems():
        yield Error(
            f"{setting} {problem}.",
            hint="See 'Reach users who are not connected' in the documentation.",
            id="imgo.E054",
        )
    missing = [name for name in PACKAGES if find_spec(name) is None] if names else []
    if missing:
        yield Error(
            f"The provider {names[0]!r} is configured, and the package {missing[0]!r} is missing.",
            hint=f"Install it: pip install 'imgo[{names[0]}]'; in a checkout of imgo: "
            ".venv/bin/python -m pip install 'httpcore[asyncio,http2]'",
            id="imgo.E055",
        )


@register
@with_settings
def check_networks() -> Iterator[CheckMessage]:
    """E056: a private network of push services that is no CIDR, or a server without https."""
    from ipaddress import ip_network

    for text in conf.WEBPUSH_NETWORKS:
        try:
            ip_network(text)
        except ValueError:
            yield Error(
                f"WEBPUSH_NETWORKS has {text[:60]!r}, which is no network.",
                hint="Use CIDR, such as 10.0.0.0/8.",
                id="imgo.E056",
            )
    for name in ("APNS_SERVER", "FCM_SERVER"):
        if not getattr(conf, name).startswith("https://"):
            yield Error(
                f"{name} must begin with https://: requests carry the secrets of your account.",
                hint="Remove the setting to use the provider's own server.",
                id="imgo.E056",
            )
