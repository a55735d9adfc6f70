"""The channel layer: one that other processes do not hear, or that drops messages. The broker."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register
from kombu import Connection

from push.checks.reading import with_settings

IN_PROCESS = "push.layers.InProcessChannelLayer"
STOCK = "channels.layers.InMemoryChannelLayer"
CORE = ("channels_redis.core.RedisChannelLayer",)
USE_OURS = "Use push.layers.PubSubChannelLayer, as imgo_site/settings.py does with REDIS_URL set."


@register
@with_settings
def check_layer() -> Iterator[CheckMessage]:
    """E008: no layer, or a deaf one; W007-W009: such that lose messages."""
    layer = settings.CHANNEL_LAYERS.get("default", {}).get("BACKEND", "")
    if not layer:
        yield Error("CHANNEL_LAYERS has no default layer.", hint=USE_OURS, id="imgo.E008")
    if layer in {IN_PROCESS, STOCK} and settings.REDIS_URL:
        yield Error(
            f"{layer} is heard in one process alone: workers and API processes reach no session.",
            hint=USE_OURS,
            id="imgo.E008",
        )
    elif layer in {IN_PROCESS, STOCK} and settings.DATABASE_URL:
        yield checks.Warning(
            "DATABASE_URL is set and REDIS_URL is not: nodes, workers and API processes that share "
            "the database do not hear each other. One process alone works.",
            hint="Set REDIS_URL.",
            id="imgo.W007",
        )
    if layer == STOCK:
        yield checks.Warning(
            f"{layer} drops messages when 100 are waiting.",
            hint=f"Use {IN_PROCESS}.",
            id="imgo.W008",
        )
    if layer in CORE:
        yield checks.Warning(
            f"{layer} drops messages of a channel when 100 are waiting.",
            hint=USE_OURS,
            id="imgo.W009",
        )


@register
def check_broker(**_: Any) -> list[CheckMessage]:
    """E009: a broker that Celery cannot speak to."""
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return []
    try:
        # It imports the transport, and connects to nothing.
        Connection(settings.CELERY_BROKER_URL).create_transport()
    except (KeyError, ImportError, NameError, ValueError) as error:
        # kombu has names of such a package in its code, and does not see that it is missing.
        is_missing = isinstance(error, ImportError | NameError)
        reason = "the Python package for it is not installed" if is_missing else error.args[0]
        return [
            Error(
                f"CELERY_BROKER_URL cannot be used: {reason}.",
                hint="Say redis://, amqp:// (RabbitMQ) or confluentkafka://, and install what it "
                "needs: see docs/howto/brokers.md. Pushes would wait for the sweep.",
                id="imgo.E009",
            )
        ]
    return []
