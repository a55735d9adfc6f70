"""Names of channel-layer groups. A publisher and a hub meet only here and at the envelope.

Group names allow under 100 characters of `[A-Za-z0-9-_.]`, keys and rooms allow nearly anything,
so their names are hashed; 128 bits make a collision of two names out of the question.
"""

from hashlib import blake2b
from zlib import crc32

ALL = "all"


def key_group(key: str) -> str:
    """The group of all sessions of a key."""
    return f"k.{_hashed(key)}"


def room_group(room: str) -> str:
    """The group of all sessions in a room."""
    return f"r.{_hashed(room)}"


def node_group(node_id: str) -> str:
    """The group that only one node is in: for orders to it."""
    return f"n.{node_id}"


def partition_of(name: str, partitions: int) -> int:
    """Which of the partitions a key or a room belongs to."""
    if partitions == 1:
        return 0
    return crc32(name.encode("utf-8", "surrogatepass")) % partitions


def is_key_group(group: str) -> bool:
    """Whether it is the group of a key: its messages are never put together in one write.

    An old client of imgo takes one read for one frame.
    """
    return group.startswith("k.")


def _hashed(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
