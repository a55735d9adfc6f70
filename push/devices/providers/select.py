"""Choice of providers by the settings. Only those that are configured are imported."""

from collections.abc import Iterator

from imgo_site.conf import conf
from push.devices.addresses import configured
from push.devices.providers.base import Provider, text_or_file
from push.devices.tables import ProviderName


def make(name: str) -> Provider:
    """Return a new provider, for the running loop. Raises `ImportError` or `ValueError`."""
    if name == ProviderName.WEBPUSH:
        from push.devices.providers.webpush import WebPush

        return WebPush()
    if name == ProviderName.APNS:
        from push.devices.providers.apns import Apns

        return Apns()
    from push.devices.providers.fcm import Fcm

    return Fcm()


def problems() -> Iterator[tuple[str, str]]:
    """Yield (setting, what is wrong with it) for each configured provider that cannot work."""
    for name in configured():
        yield from {
            ProviderName.WEBPUSH: _of_webpush,
            ProviderName.APNS: _of_apns,
            ProviderName.FCM: _of_fcm,
        }[ProviderName(name)]()


def _of_webpush() -> Iterator[tuple[str, str]]:
    from push.devices.providers.vapid import read_private_key

    try:
        read_private_key(conf.WEBPUSH_PRIVATE_KEY)
    except ValueError as error:
        yield "WEBPUSH_PRIVATE_KEY", f"cannot be used: {error}"
    if problem := subject_problem(conf.WEBPUSH_SUBJECT):
        yield "WEBPUSH_SUBJECT", problem


def subject_problem(subject: str) -> str:
    """Return why a contact cannot be used, "" if it can. Apple refuses those of local hosts."""
    scheme, _, rest = subject.partition(":")
    host = rest.rpartition("@")[2] if scheme == "mailto" else rest.removeprefix("//")
    host = host.partition("/")[0].partition(":")[0].lower()
    if scheme not in ("mailto", "https") or (scheme == "mailto" and "@" not in rest):
        return "must be a contact such as mailto:push@example.com or https://example.com/contact"
    if "." not in host or host.endswith((".local", ".localhost", ".internal")):
        return f"names the host {host!r}: push services refuse contacts that are not public"
    return ""


def _of_apns() -> Iterator[tuple[str, str]]:
    for name in ("APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC"):
        if not getattr(conf, name):
            yield name, "is empty, and APNS_KEY is set"
    try:
        text = text_or_file(conf.APNS_KEY, "-----BEGIN")
    except OSError as error:
        yield "APNS_KEY", f"is no PEM text, and no file that can be read: {error.strerror}"
        return
    from push.devices.providers.vapid import read_private_key

    try:
        read_private_key(text if "-----BEGIN" in text else "-----BEGIN")
    except ValueError as error:
        yield "APNS_KEY", f"cannot be used: {error}"


def _of_fcm() -> Iterator[tuple[str, str]]:
    from push.devices.providers.fcm import read_credentials

    try:
        read_credentials(conf.FCM_CREDENTIALS)
    except ValueError as error:
        yield "FCM_CREDENTIALS", f"cannot be used: {error}"
