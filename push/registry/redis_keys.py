"""Names of the registry's keys in Redis, all under one prefix, and decoders of their values."""

import msgspec

from push.bus.group_names import key_group, room_group
from push.registry.base import Entry

CLIENT_NAME = "imgo-registry"  # in CLIENT LIST
PREFIX = "imgo:registry:"


def key_name(key: str) -> str:
    """Return the name of the hash of a subscriber key's sessions, each with its node's id."""
    return f"{PREFIX}key:{key_group(key)}"


def count_name(node_id: str) -> str:
    """Return the name of a node's number of sessions."""
    return f"{PREFIX}count:{node_id}"


def deliveries_name(node_id: str) -> str:
    """Return the name of the number of messages that a node has written to sessions."""
    return f"{PREFIX}deliveries:{node_id}"


def waiting_name(node_id: str) -> str:
    """Return the name of the hash of unsent bytes, for a node's sessions that have any."""
    return f"{PREFIX}waiting:{node_id}"


def rooms_name(node_id: str) -> str:
    """Return the name of the sorted set of a node's rooms; the score is the number of sessions."""
    return f"{PREFIX}fullest:{node_id}"


def room_name(node_id: str, room: str) -> str:
    """Return the name of the hash of a node's sessions in a room."""
    return f"{PREFIX}room:{node_id}:{room_group(room)}"


def text(value: bytes | str) -> str:
    """Return a value from Redis as text."""
    return value.decode() if isinstance(value, bytes) else value


def decode_entry(value: bytes | str) -> Entry:
    """Return a session from its stored JSON."""
    return msgspec.json.decode(value, type=Entry)
