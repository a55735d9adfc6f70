"""Names of presence's keys and channels in Redis.

- `beats`: node → its latest beat
- `generation`: changes if Redis has lost everything; `settling`: exists from then until every live
  node has written its keys again; `renewed`: the rows of those that have
- `members:<room>`: hash, key → its nodes, the time of its info, its info
- `order:<room>`: sorted set of the keys, for pages
- `infos:<room>`: hash, for keys of more than one node: node and key → the time of its info there,
  its info
- `version:<room>`: hash, `epoch` and `number`
- `nodes:<room>`: set of the nodes that hold a key of the room
- `held:<node>:<room>`: set of the keys that a node holds in a room
- `rooms:<node>`: set of the rooms in which a node holds keys

Rooms are hashed. A room's keys end with its last member, so none of them expires. Channels:
`node:<node>` has the changes of a node's rooms, `all` what concerns every node.
"""

from push.bus.group_names import room_group

PREFIX = "imgo:presence:"
BEATS = f"{PREFIX}beats"
GENERATION = f"{PREFIX}generation"
SETTLING = f"{PREFIX}settling"
RENEWED = f"{PREFIX}renewed"
ALL_CHANNEL = f"{PREFIX}all"


def node_channel(node_id: str) -> str:
    """Return the channel of a node's changes."""
    return f"{PREFIX}node:{node_id}"


def members_name(room: str) -> str:
    """Return the name of a room's members."""
    return f"{PREFIX}members:{room_group(room)}"


def order_name(room: str) -> str:
    """Return the name of a room's keys in order."""
    return f"{PREFIX}order:{room_group(room)}"


def version_name(room: str) -> str:
    """Return the name of a room's version."""
    return f"{PREFIX}version:{room_group(room)}"


def infos_name(room: str) -> str:
    """Return the name of the infos that the nodes of a key have."""
    return f"{PREFIX}infos:{room_group(room)}"


def nodes_name(room: str) -> str:
    """Return the name of a room's nodes."""
    return f"{PREFIX}nodes:{room_group(room)}"


def held_name(node_id: str, room: str) -> str:
    """Return the name of a node's keys in a room."""
    return f"{PREFIX}held:{node_id}:{room_group(room)}"


def rooms_name(node_id: str) -> str:
    """Return the name of a node's rooms."""
    return f"{PREFIX}rooms:{node_id}"
