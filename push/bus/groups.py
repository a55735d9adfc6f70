"""Names of channel-layer groups. Publishers and hubs share only these names and the envelope.

A group name has under 100 characters of `[A-Za-z0-9-_.]`, while keys and rooms allow nearly any
character. So their names are hashed; 128 bits make a collision practically impossible.
"""

from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

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


def partition_of(name: str, partitions: int) -> int:
    """Return the partition of a key or a room, from 0 to `partitions` - 1."""
    if partitions == 1:
        return 0
    return crc32(name.encode("utf-8", "surrogatepass")) % partitions


def partitions_of(names: Iterable[str], partitions: int) -> tuple[int, ...]:
    """Return the partitions of some keys, or of a room, each once; "" stands for everyone."""
    return tuple({partition_of(name, partitions) for name in names})


def is_key_group(group: str) -> bool:
    """Return whether this is the group of a key, whose messages are never joined in one write.

    Old clients of imgo treat one read as one frame.
    """
    return group.startswith("k.")


def _hashed(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
