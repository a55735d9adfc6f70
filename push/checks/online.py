"""Checks of `EVENT_KEYS`: the keys whose online and offline events are reported."""

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import check_name
from push.checks.reading import with_settings
from push.webhooks.endpoints import EventType

OF_KEYS = (EventType.KEY_ONLINE, EventType.KEY_OFFLINE)


@register
@with_settings
def check_event_keys() -> Iterator[CheckMessage]:
    """E053: a pattern of EVENT_KEYS that matches no key; W045: a webhook for events of no key."""
    for pattern in conf.EVENT_KEYS:
        try:
            check_name(pattern, "pattern")
        except BadRequest as error:
            yield Error(
                f"EVENT_KEYS has a pattern that matches no key: {error.message}",
                hint='Name keys, or patterns such as "user-*".',
                id="imgo.E053",
            )
    if conf.EVENT_KEYS:
        return
    for number, entry in enumerate(conf.WEBHOOKS, 1):
        events = entry.get("events")
        types = [name for name in OF_KEYS if isinstance(events, list) and name in events]
        if types:
            yield Warning(
                f"Entry {number} of WEBHOOKS asks for {' and '.join(types)}, and EVENT_KEYS is "
                "empty: there are no such events.",
                hint='Set EVENT_KEYS to the keys that matter, such as ["user-*"].',
                id="imgo.W045",
            )
