"""What operators do: close sessions, drain a node, revoke a token. For commands, dashboard, API.

Orders travel through the channel layer to whoever holds the sessions; each raises `Unavailable`
when the layer cannot be reached.
"""

import time
from contextlib import suppress

from django.db import transaction

from accounts.models import Token
from imgo_site.errors import BadRequest, NotFound, Unavailable
from imgo_site.names import check_name
from push.bus.envelope import close_envelope, drain_envelope, undrain_envelope
from push.bus.groups import key_group, node_group
from push.bus.publish import publish
from push.registry.base import NodeEntry
from push.registry.select import get_registry
from push.wire import CloseCode

CONFIRM_TIMEOUT = 5.0  # seconds for a node's report that it has done what it was asked
CONFIRM_POLL = 0.1  # seconds
LAYER_TIMEOUT = 1.5  # seconds that a caller waits for the channel layer


def kick_key(key: str) -> int:
    """Close all sessions of a key, with a code after which they do not come back by themselves.

    Returns how many there were. Raises `BadRequest`.
    """
    check_name(key, "key")
    sessions = get_registry().sessions(key)
    publish([close_envelope(key_group(key), [], CloseCode.KICKED)], LAYER_TIMEOUT)
    return len(sessions)


def kick_session(session_id: str) -> None:
    """Close one session like that; nothing happens when there is none. Raises `BadRequest`."""
    node_id, dash, number = session_id.partition("-")
    if not dash or not node_id.isalnum() or not number.isdigit():
        raise BadRequest(f"{session_id!r} is not a session's id: one looks like 5938fe7d-12.")
    publish([close_envelope(node_group(node_id), [session_id], CloseCode.KICKED)], LAYER_TIMEOUT)


def drain_node(name: str) -> int:
    """Have a node, by id or name, take no more sessions and close those it has, over
    `DRAIN_SECONDS`, with a code that says to come back.

    Return how many it had when it was asked. Raises `NotFound`, and `Unavailable` if the node does
    not confirm it.
    """
    named = _nodes_named(name)
    publish([drain_envelope(node_group(node.id)) for node in named], LAYER_TIMEOUT)
    _confirm(named, is_draining=True)
    return sum(node.sessions for node in named)


def undrain_node(name: str) -> None:
    """Have a drained node, by id or name, take sessions again. Raises as `drain_node` does."""
    named = _nodes_named(name)
    publish([undrain_envelope(node_group(node.id)) for node in named], LAYER_TIMEOUT)
    _confirm(named, is_draining=False)


def _confirm(asked: list[NodeEntry], *, is_draining: bool) -> None:
    """Return when a node that was asked reports this state, which a node does every second.

    The order may be lost: pub/sub reaches only nodes that are connected to Redis at that moment.
    One report is enough, because a killed node is listed beside its successor of the same name.
    Raises `Unavailable` after `CONFIRM_TIMEOUT`.
    """
    ids = {node.id for node in asked}
    deadline = time.monotonic() + CONFIRM_TIMEOUT
    while True:
        states = [node.is_draining for node in get_registry().nodes() if node.id in ids]
        if is_draining in states:
            return
        if time.monotonic() > deadline:
            wanted = "is draining" if is_draining else "takes sessions again"
            raise Unavailable(
                f"{asked[0].name} has not confirmed that it {wanted}: it may not be connected to "
                "Redis. Look at its /readyz, and repeat this."
            )
        time.sleep(CONFIRM_POLL)


def _nodes_named(name: str) -> list[NodeEntry]:
    # One that was killed is listed until its lease ends, beside its successor of the same name.
    named = [node for node in get_registry().nodes() if name in {node.id, node.name}]
    if not named:
        raise NotFound(f"There is no live node {name!r}.")
    return named


def revoke_token(key: str) -> None:
    """Delete a key's token, and close its sessions at once. Raises `BadRequest` or `NotFound`.

    When the layer is away, the nodes notice within `REVALIDATE_INTERVAL`.
    """
    if not Token.objects.filter(key=check_name(key, "key")).delete()[0]:
        raise NotFound(f"The key {key!r} has no token.")

    def close() -> None:
        with suppress(Unavailable):
            publish([close_envelope(key_group(key), [], CloseCode.REVOKED)], LAYER_TIMEOUT)

    transaction.on_commit(close)  # before that the token still lets its client in again
