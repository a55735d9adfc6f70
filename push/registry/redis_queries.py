"""Queries of a large registry in Redis at a bounded cost.

A full read would return hundreds of thousands of names. It would take seconds, for the caller and
of Redis's time.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis

from imgo_site.names import INT64_MAX, check_number
from push.registry.base import FullestRooms, KeyMatches, NodeEntry, RoomMatches, fullest
from push.registry.redis_keys import PREFIX, decode_entry, rooms_name, text

CHUNK = 500  # names in one command
CANDIDATES = 2_000  # rooms of each node, its fullest, that are candidates for the fullest of all
SAMPLE = 1_000  # rooms of each node, to estimate the share of rooms that are on several nodes
SCAN = 250  # Redis keys in one step
SCAN_MAX = 10_000  # subscriber keys or rooms for one query: some 100 ms


def fullest_rooms(client: redis.Redis, nodes: Sequence[NodeEntry], limit: int) -> FullestRooms:
    """Return the fullest rooms, from the fullest `CANDIDATES` of each node.

    A room that is not a candidate of any node is missed, even if its total is large.
    """
    names = [rooms_name(node.id) for node in nodes]
    tops: list[Any] = [client.zrevrange(name, 0, CANDIDATES - 1) for name in names]
    candidates = {text(room) for top in tops for room in top}
    counts = sizes(client, names, candidates)
    cards = [int(client.zcard(name)) for name in names]
    is_all = max(cards, default=0) <= CANDIDATES
    is_estimate = not is_all and len(names) > 1
    if is_estimate:
        shares = [_share(client, name, names) for name in names]
        count = round(sum(size * share for size, share in zip(cards, shares, strict=True)))
    else:
        count = len(candidates) if is_all else cards[0]
    return FullestRooms(count, is_estimate, fullest(counts, limit))


def sizes(client: redis.Redis, names: Sequence[str], rooms: Iterable[str]) -> dict[str, int]:
    """Return room → number of sessions, for these rooms.

    `names`: the results of `rooms_name` for the nodes that count.
    """
    counts = dict.fromkeys(rooms, 0)
    for name in names:
        for room, count in _scores(client, name, counts):
            counts[room] += int(count or 0)
    return counts


def _scores(
    client: redis.Redis, name: str, rooms: Iterable[str]
) -> Iterator[tuple[str, float | None]]:
    """Yield (room, sessions) of these rooms on a node; None for a room without sessions there."""
    room_list = list(rooms)
    for start in range(0, len(room_list), CHUNK):
        chunk = room_list[start : start + CHUNK]
        yield from zip(chunk, client.zmscore(name, chunk), strict=True)


def _share(client: redis.Redis, name: str, names: list[str]) -> float:
    """Return the weight of this node's rooms in the total: 1/3 if all are on three nodes.

    It is the mean of 1 / (number of nodes with the room) over a sample.
    """
    sample: Any = client.zrandmember(name, SAMPLE) or ()
    node_counts = {text(room): 1 for room in sample}
    for other in names:
        if other != name:
            for room, count in _scores(client, other, node_counts):
                node_counts[room] += count is not None
    return sum(1 / nodes for nodes in node_counts.values()) / max(1, len(node_counts))


def find_keys(
    client: redis.Redis, nodes: Sequence[NodeEntry], part: str, limit: int, cursor: int
) -> KeyMatches:
    """Return keys with `part` in their name, comparing `SCAN_MAX` keys or a few more."""
    alive = {node.id for node in nodes}
    rows: dict[str, int] = {}
    examined = 0
    while len(rows) < limit and examined < SCAN_MAX:
        cursor, names = client.scan(cursor, match=f"{PREFIX}key:*", count=SCAN)
        examined += len(names)
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hvals(name)
            replies = pipe.execute()
        for entries in (list(map(decode_entry, reply)) for reply in replies):
            live = [entry for entry in entries if entry.node in alive]
            if live and part in live[0].key:
                rows[live[0].key] = len(live)
        if not cursor:
            break
    return KeyMatches(list(rows.items()), cursor, examined)


def find_rooms(
    client: redis.Redis, nodes: Sequence[NodeEntry], part: str, limit: int, cursor: str
) -> RoomMatches:
    """Return rooms with `part` in their name, comparing `SCAN_MAX` names or a few more.

    `cursor`: the number of a node and Redis's own cursor there, joined by a dash. A room on
    several nodes is returned only for the first of them.

    Raises `BadRequest` for a cursor in any other form.
    """
    number, position = _parse_cursor(cursor)
    names = [rooms_name(node.id) for node in nodes]
    rows: dict[str, int] = {}
    examined = 0
    for index, node in enumerate(nodes):
        if node.number < number:
            continue
        if node.number > number:
            number, position = node.number, 0
        while True:
            reply: Any = client.zscan(names[index], position, count=SCAN)
            position, scanned = reply
            examined += len(scanned)
            matches = [name for room, _ in scanned if part in (name := text(room))]
            earlier = sizes(client, names[:index], matches)
            rows |= sizes(client, names, (room for room in matches if not earlier[room]))
            if not position:
                break
            if len(rows) >= limit or examined >= SCAN_MAX:
                return RoomMatches(list(rows.items()), f"{number}-{position}", examined)
        is_full = len(rows) >= limit or examined >= SCAN_MAX
        if is_full and index + 1 < len(nodes):
            return RoomMatches(list(rows.items()), f"{nodes[index + 1].number}-0", examined)
    return RoomMatches(list(rows.items()), "", examined)


def _parse_cursor(cursor: str) -> tuple[int, int]:
    number, _, position = (cursor or "0-0").partition("-")
    return (
        check_number(number, "The cursor's node", lowest=0, highest=INT64_MAX),
        check_number(position, "The cursor's position", lowest=0, highest=INT64_MAX),
    )
