"""Names of channel-layer groups. Publishers and hubs share only these names and the envelope.

A group name has under 100 characters of `[A-Za-z0-9-_.]`, while keys and rooms allow nearly any
character. So their names are hashed; 128 bits make a collision practically impossible.
"""

from hashlib import blake2b

ALL = "all"


def key_group(key: str) -> str:
    """Return the group of all sessions of a key."""
    return f"k.{_hashed(key)}"


def room_group(room: str) -> str:
    """Return the group of all sessions in a room."""
    return f"r.{_hashed(room)}"


def node_group(node_id: str) -> str:
    """Return the group whose only member is one node, for orders to it."""
    return f"n.{node_id}"


def is_key_group(group: str) -> bool:
    """Return whether this is the group of a key, whose messages are never joined in one write.

    Old clients of imgo treat one read as one frame.
    """
    return group.startswith("k.")


def _hashed(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
