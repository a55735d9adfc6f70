"""Names of the registry's keys in Redis, all under one prefix, and what is read from them."""

import msgspec

from push.bus.groups import key_group, room_group
from push.registry.base import Entry

PREFIX = "imgo:registry:"


def key_name(key: str) -> str:
    """The sessions of a subscriber key, each with the id of its node."""
    return f"{PREFIX}key:{key_group(key)}"


def count_name(node_id: str) -> str:
    """How many sessions a node has."""
    return f"{PREFIX}count:{node_id}"


def deliveries_name(node_id: str) -> str:
    """How many messages a node has written to sessions."""
    return f"{PREFIX}deliveries:{node_id}"


def waiting_name(node_id: str) -> str:
    """The bytes that wait for those sessions of a node for which some do."""
    return f"{PREFIX}waiting:{node_id}"


def rooms_name(node_id: str) -> str:
    """The rooms that a node's sessions are in, by how many of them are."""
    return f"{PREFIX}fullest:{node_id}"


def room_name(node_id: str, room: str) -> str:
    """Which sessions of a node are in a room."""
    return f"{PREFIX}room:{node_id}:{room_group(room)}"


def text(value: bytes | str) -> str:
    """What Redis answers, as text."""
    return value.decode() if isinstance(value, bytes) else value


def decode_entry(value: bytes | str) -> Entry:
    """A session as it was written."""
    return msgspec.json.decode(value, type=Entry)
