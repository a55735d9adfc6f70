"""Checks of the channel layer and the broker: layers that lose messages or stay in one process."""

from collections.abc import Iterator
from typing import Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import InvalidChannelLayerError
from channels.layers import ChannelLayerManager
from channels_redis.utils import decode_hosts
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from imgo_site.deployment import (
    IN_PROCESS_LAYERS,
    broker_url,
    has_workers,
    is_shared_database,
    layer,
    redis_url,
)
from imgo_site.service_urls import check_broker_url, check_redis_url
from push.bus.layers import PubSubChannelLayer
from push.bus.redis_clients import layer_pool
from push.checks.reading import with_settings

IN_PROCESS = "push.layers.InProcessChannelLayer"
STOCK = "channels.layers.InMemoryChannelLayer"
CORE = ("channels_redis.core.RedisChannelLayer",)
USE_OURS = "Use push.layers.PubSubChannelLayer, as imgo_site/settings.py does with REDIS_URL set."


@register
@with_settings
def check_layer() -> Iterator[CheckMessage]:
    """E008: a channel layer that is missing, invalid, or does not connect the processes.

    W007: a shared database without REDIS_URL; W008: a channel layer in memory that drops messages;
    W009: a channel layer of channels_redis that drops messages.
    """
    name = layer()
    if problem := _problem(name):
        yield Error(problem, hint=USE_OURS, id="imgo.E008")
        return
    if name in IN_PROCESS_LAYERS and redis_url():
        yield Error(
            f"{name} connects nothing outside its process: workers and API processes reach no "
            "session.",
            hint=USE_OURS,
            id="imgo.E008",
        )
    elif name in IN_PROCESS_LAYERS and is_shared_database():
        yield checks.Warning(
            "The database can serve many processes, but REDIS_URL is not set: nodes, workers and "
            "API processes cannot reach each other.",
            hint="Set REDIS_URL, or run only one process.",
            id="imgo.W007",
        )
    elif name and name not in IN_PROCESS_LAYERS and not redis_url():
        yield Error(
            f"{name} connects several processes, but REDIS_URL is not set: each process would know "
            "only its own sessions.",
            hint="Set REDIS_URL in the settings to the Redis of the layer.",
            id="imgo.E008",
        )
    if name == STOCK:
        yield checks.Warning(
            f"{name} drops a node's messages when 100 of them wait.",
            hint=f"Use {IN_PROCESS}.",
            id="imgo.W008",
        )
    if name in CORE:
        yield checks.Warning(
            f"{name} drops a node's messages when 100 of them wait.",
            hint=USE_OURS,
            id="imgo.W009",
        )


def _problem(name: str) -> str:
    """Return why CHANNEL_LAYERS is not valid, or "" if a layer can be created from it."""
    if not name:
        return "CHANNEL_LAYERS has no default layer: a dictionary with a BACKEND."
    try:
        backend = ChannelLayerManager().make_backend(DEFAULT_CHANNEL_LAYER)
    except InvalidChannelLayerError as error:
        return f"CHANNEL_LAYERS: {error}."
    except Exception as error:  # noqa: BLE001 - its class may raise anything
        return f"CHANNEL_LAYERS: {name} cannot be made: {type(error).__name__}: {error}."
    if isinstance(backend, PubSubChannelLayer):
        return _unusable_hosts()
    return ""


def _unusable_hosts() -> str:
    """Return why the hosts of our layer are not valid, or "" if they are.

    Our layer itself reads its hosts only when a loop runs, which is too late to report an error.
    """
    hosts = settings.CHANNEL_LAYERS[DEFAULT_CHANNEL_LAYER].get("CONFIG", {}).get("hosts")
    if not hosts:
        return "CHANNEL_LAYERS: its CONFIG has no hosts; it would use a Redis on this machine."
    try:
        for host in decode_hosts(hosts):
            layer_pool(host).make_connection()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001 - the hosts may be anything
        return f"CHANNEL_LAYERS: the hosts of its CONFIG cannot be used: {error}."
    return ""


@register
def check_redis(**_: Any) -> list[CheckMessage]:
    """E042: a REDIS_URL that is not a valid URL of a Redis."""
    try:
        if redis_url():
            check_redis_url(redis_url())
    except ValueError as error:
        return [
            Error(
                f"REDIS_URL cannot be used: {error}.",
                hint="Use redis://host:6379/0, a URL with rediss:// or unix://, or with Sentinels "
                "redis+sentinel://host:26379,host:26379/service/0.",
                id="imgo.E042",
            )
        ]
    return []


@register
def check_broker(**_: Any) -> list[CheckMessage]:
    """E009: a broker URL that Celery cannot use."""
    if not has_workers():
        return []
    try:
        check_broker_url(broker_url())
    except (ImportError, ValueError) as error:
        is_missing = isinstance(error, ImportError)
        reason = "the Python package for it is not installed" if is_missing else str(error)
        return [
            Error(
                "The broker's URL (CELERY_BROKER_URL or REDIS_URL of the environment, or "
                f"IMGO_BROKER_URL of the settings) cannot be used: {reason}.",
                hint="Use redis://, amqp:// (RabbitMQ) or confluentkafka://, and install the "
                "package that it needs: see docs/howto/brokers.md.",
                id="imgo.E009",
            )
        ]
    return []
