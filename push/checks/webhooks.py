"""Checks of `WEBHOOKS`: the endpoints that get events."""

from collections.abc import Iterator

from django.core import checks
from django.core.checks import CheckMessage, Error, register

from imgo_site.conf import conf
from push.checks.reading import with_settings
from push.checks.security import sends_in_the_clear
from push.webhooks.endpoints import problems


@register
@with_settings
def check_webhooks() -> Iterator[CheckMessage]:
    """E048: an entry of WEBHOOKS that cannot work; W039: a webhook over plain HTTP."""
    for number, entry in enumerate(conf.WEBHOOKS, 1):
        mistakes = list(problems(entry))
        for problem, hint in mistakes:
            yield _error(f"Entry {number} of WEBHOOKS {problem}.", hint)
        if not mistakes and sends_in_the_clear(entry["url"]):
            yield checks.Warning(
                f"Entry {number} of WEBHOOKS has a URL with http://: keys and messages of your "
                "clients travel without encryption.",
                hint="Use https://, unless the network between imgo and your backend is private.",
                id="imgo.W039",
            )
    urls = [entry.get("url") for entry in conf.WEBHOOKS]
    for number, url in enumerate(urls, 1):
        if url in urls[: number - 1]:
            yield _error(
                f"Entry {number} of WEBHOOKS has the URL of entry {urls.index(url) + 1}.",
                "Join their events and keys, or give each a path of its own.",
            )


def _error(text: str, hint: str) -> CheckMessage:
    return Error(text, hint=hint, id="imgo.E048")
