"""Actions for commands, dashboard and API: on sessions, nodes and tokens.

Orders are sent through the channel layer to the nodes that hold the sessions. Each action raises
`Unavailable` if the layer is unavailable, except `revoke_token`.
"""

import time
from contextlib import suppress

from django.db import transaction

from accounts.models import Token
from imgo_site.errors import BadRequest, NotFound, Unavailable
from imgo_site.names import check_name
from push.bus.envelope import close_envelope, drain_envelope, undrain_envelope
from push.bus.group_names import key_group, node_group
from push.bus.publish import publish
from push.registry.base import NodeEntry
from push.registry.select import get_registry
from push.wire import CloseCode

CONFIRM_TIMEOUT = 5.0  # seconds for a node to report that it has executed an order
CONFIRM_POLL = 0.1  # seconds
LAYER_TIMEOUT = 1.5  # seconds that a caller waits for the channel layer


def kick_key(key: str) -> int:
    """Close all sessions of a key, with a code after which clients do not reconnect.

    Return the number of sessions. Raises `BadRequest` for an invalid key.
    """
    check_name(key, "key")
    sessions = get_registry().sessions(key)
    publish([close_envelope(key_group(key), [], CloseCode.KICKED)], LAYER_TIMEOUT)
    return len(sessions)


def kick_session(session_id: str) -> None:
    """Close one session with that code; do nothing if there is none.

    Raises `BadRequest` for an invalid id.
    """
    node_id, dash, number = session_id.partition("-")
    if not dash or not node_id.isalnum() or not number.isdigit():
        raise BadRequest(f"{session_id!r} is not a session's id: one looks like 5938fe7d-12.")
    publish([close_envelope(node_group(node_id), [session_id], CloseCode.KICKED)], LAYER_TIMEOUT)


def drain_node(name: str) -> int:
    """Order a node to accept no more sessions and to close its sessions over `DRAIN_SECONDS`.

    `name`: id or name of the node.

    Sessions are closed with a code after which clients reconnect. Return the number of sessions
    before the order.
    Raises `NotFound`; `Unavailable` if the node does not confirm the order.
    """
    nodes = _nodes_named(name)
    publish([drain_envelope(node_group(node.id)) for node in nodes], LAYER_TIMEOUT)
    _confirm(nodes, is_draining=True)
    return sum(node.sessions for node in nodes)


def undrain_node(name: str) -> None:
    """Order a drained node to accept sessions again. Raises as `drain_node` does.

    `name`: id or name of the node.
    """
    nodes = _nodes_named(name)
    publish([undrain_envelope(node_group(node.id)) for node in nodes], LAYER_TIMEOUT)
    _confirm(nodes, is_draining=False)


def _confirm(ordered: list[NodeEntry], *, is_draining: bool) -> None:
    """Return when one of the ordered nodes reports this state; nodes report every second.

    The order may be lost: pub/sub reaches only nodes that are connected to Redis at that moment.
    One report is enough, because a killed node is listed beside its successor of the same name.
    Raises `Unavailable` after `CONFIRM_TIMEOUT`.
    """
    ids = {node.id for node in ordered}
    deadline = time.monotonic() + CONFIRM_TIMEOUT
    while True:
        states = [node.is_draining for node in get_registry().nodes() if node.id in ids]
        if is_draining in states:
            return
        if time.monotonic() > deadline:
            state = "is draining" if is_draining else "takes sessions again"
            raise Unavailable(
                f"{ordered[0].name} has not confirmed that it {state}: it may not be connected to "
                "Redis. Look at its /readyz, and repeat this."
            )
        time.sleep(CONFIRM_POLL)


def _nodes_named(name: str) -> list[NodeEntry]:
    # A killed node is listed until its lease ends, beside its successor of the same name.
    named = [node for node in get_registry().nodes() if name in {node.id, node.name}]
    if not named:
        raise NotFound(f"There is no live node {name!r}.")
    return named


def revoke_token(key: str) -> None:
    """Delete a key's token, and close its sessions at once. Raises `BadRequest` or `NotFound`.

    If the layer is unavailable, the nodes close the sessions within `REVALIDATE_INTERVAL`.
    """
    if not Token.objects.filter(key=check_name(key, "key")).delete()[0]:
        raise NotFound(f"The key {key!r} has no token.")

    def close() -> None:
        with suppress(Unavailable):
            publish([close_envelope(key_group(key), [], CloseCode.REVOKED)], LAYER_TIMEOUT)

    transaction.on_commit(close)  # before the commit, the client could reconnect with the token
