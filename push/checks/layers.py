"""The channel layer: one that other processes do not hear, or that drops messages. The broker."""

from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Error, register
from kombu import Connection

from imgo_site.deployment import (
    IN_PROCESS_LAYERS,
    broker_url,
    has_workers,
    is_shared_database,
    layer,
    redis_url,
)
from push.checks.reading import with_settings

IN_PROCESS = "push.layers.InProcessChannelLayer"
STOCK = "channels.layers.InMemoryChannelLayer"
CORE = ("channels_redis.core.RedisChannelLayer",)
USE_OURS = "Use push.layers.PubSubChannelLayer, as imgo_site/settings.py does with REDIS_URL set."


@register
@with_settings
def check_layer() -> Iterator[CheckMessage]:
    """E008: no channel layer, or one that hears nothing; W007-W009: one that loses messages."""
    name = layer()
    if not name:
        yield Error("CHANNEL_LAYERS has no default layer.", hint=USE_OURS, id="imgo.E008")
    if name in IN_PROCESS_LAYERS and redis_url():
        yield Error(
            f"{name} is heard in one process alone: workers and API processes reach no session.",
            hint=USE_OURS,
            id="imgo.E008",
        )
    elif name in IN_PROCESS_LAYERS and is_shared_database():
        yield checks.Warning(
            "The database is one for many processes, and REDIS_URL is not set: nodes, workers and "
            "API processes do not hear each other. One process alone works.",
            hint="Set REDIS_URL.",
            id="imgo.W007",
        )
    elif name and name not in IN_PROCESS_LAYERS and not redis_url():
        yield Error(
            f"{name} is heard by other processes, and REDIS_URL is not set: each process would "
            "know its own sessions only.",
            hint="Set REDIS_URL of the settings to the Redis of the layer.",
            id="imgo.E008",
        )
    if name == STOCK:
        yield checks.Warning(
            f"{name} drops messages when 100 are waiting.",
            hint=f"Use {IN_PROCESS}.",
            id="imgo.W008",
        )
    if name in CORE:
        yield checks.Warning(
            f"{name} drops messages of a channel when 100 are waiting.",
            hint=USE_OURS,
            id="imgo.W009",
        )


@register
def check_broker(**_: Any) -> list[CheckMessage]:
    """E009: a broker that Celery cannot speak to."""
    if not has_workers():
        return []
    try:
        # It imports the transport, and connects to nothing.
        Connection(broker_url()).create_transport()
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
