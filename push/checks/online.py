"""Checks of `EVENT_KEYS` and `EVENT_ROOMS`: names whose coming and going are events."""

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

from imgo_site.conf import conf
from imgo_site.errors import BadRequest
from imgo_site.names import check_name
from push.checks.reading import with_settings
from push.webhooks.endpoints import EventType

# Setting → a pattern for it, and the events of the keys or rooms that it matches.
SETTINGS = {
    "EVENT_KEYS": ("user-*", (EventType.KEY_ONLINE, EventType.KEY_OFFLINE)),
    "EVENT_ROOMS": ("chat-*", (EventType.ROOM_OCCUPIED, EventType.ROOM_VACATED)),
}


@register
@with_settings
def check_event_keys() -> Iterator[CheckMessage]:
    """E053: a pattern that matches no key or room; W045: a webhook for events that never come."""
    for setting, (example, types) in SETTINGS.items():
        patterns = getattr(conf, setting)
        yield from _bad_patterns(setting, patterns, example)
        if not patterns:
            yield from _vain_webhooks(setting, types, example)


def _bad_patterns(setting: str, patterns: list[str], example: str) -> Iterator[CheckMessage]:
    for pattern in patterns:
        try:
            check_name(pattern, "pattern")
        except BadRequest as error:
            yield Error(
                f"{setting} has a pattern that matches no name: {error.message}",
                hint=f'Use names, or patterns such as "{example}".',
                id="imgo.E053",
            )


def _vain_webhooks(
    setting: str, types: tuple[EventType, ...], example: str
) -> Iterator[CheckMessage]:
    for number, entry in enumerate(conf.WEBHOOKS, 1):
        events = entry.get("events")
        vain = [name for name in types if isinstance(events, list) and name in events]
        if vain:
            yield Warning(
                f"Entry {number} of WEBHOOKS asks for {' and '.join(vain)}, and {setting} is "
                "empty: there are no such events.",
                hint=f'Set {setting} to those that matter, such as ["{example}"].',
                id="imgo.W045",
            )
