"""Looks at a large registry in Redis that cost the same however much is in it.

All of it would be hundreds of thousands of names: seconds for who asks, and for Redis.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis

from imgo_site.names import INT64_MAX, check_number
from push.registry.base import FullestRooms, KeyMatches, NodeEntry, RoomMatches, fullest
from push.registry.redis_keys import PREFIX, decode_entry, rooms_name, text

CHUNK = 500  # names in one command
CANDIDATES = 2_000  # fullest rooms of each node, among which the fullest of all are looked for
SAMPLE = 1_000  # rooms of each node from which it is estimated how many are on several nodes
SCAN = 250  # of Redis's keys in one step
SCAN_MAX = 10_000  # subscriber keys or rooms for one answer: some 100 ms


def fullest_rooms(client: redis.Redis, nodes: Sequence[NodeEntry], limit: int) -> FullestRooms:
    """The fullest rooms, from the fullest `CANDIDATES` of each node.

    One that is among those of no node is overlooked, however full it is altogether.
    """
    names = [rooms_name(node.id) for node in nodes]
    tops: list[Any] = [client.zrevrange(name, 0, CANDIDATES - 1) for name in names]
    found = {text(room) for top in tops for room in top}
    counts = sizes(client, names, found)
    cards = [int(client.zcard(name)) for name in names]
    is_all = max(cards, default=0) <= CANDIDATES
    is_estimate = not is_all and len(names) > 1
    if is_estimate:
        shares = [_share(client, name, names) for name in names]
        count = round(sum(size * share for size, share in zip(cards, shares, strict=True)))
    else:
        count = len(found) if is_all else cards[0]
    return FullestRooms(count, is_estimate, fullest(counts, limit))


def sizes(client: redis.Redis, names: Sequence[str], rooms: Iterable[str]) -> dict[str, int]:
    """How many sessions are in these rooms, on the nodes whose rooms have these names."""
    counts = dict.fromkeys(rooms, 0)
    for name in names:
        for room, count in _scores(client, name, counts):
            counts[room] += int(count or 0)
    return counts


def _scores(
    client: redis.Redis, name: str, rooms: Iterable[str]
) -> Iterator[tuple[str, float | None]]:
    """(room, sessions) of these rooms on a node, None where it has none."""
    asked = list(rooms)
    for start in range(0, len(asked), CHUNK):
        chunk = asked[start : start + CHUNK]
        yield from zip(chunk, client.zmscore(name, chunk), strict=True)


def _share(client: redis.Redis, name: str, names: list[str]) -> float:
    """What a room of this node counts for: a third, if all of them are on three nodes."""
    sample: Any = client.zrandmember(name, SAMPLE) or ()
    times = {text(room): 1 for room in sample}
    for other in names:
        if other != name:
            for room, count in _scores(client, other, times):
                times[room] += count is not None
    return sum(1 / nodes for nodes in times.values()) / max(1, len(times))


def find_keys(
    client: redis.Redis, nodes: Sequence[NodeEntry], part: str, limit: int, cursor: int
) -> KeyMatches:
    """Keys with `part` in their name, from a look at `SCAN_MAX` of them or a few more."""
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
            there = [entry for entry in entries if entry.node in alive]
            if there and part in there[0].key:
                rows[there[0].key] = len(there)
        if not cursor:
            break
    return KeyMatches(list(rows.items()), cursor, examined)


def find_rooms(
    client: redis.Redis, nodes: Sequence[NodeEntry], part: str, limit: int, cursor: str
) -> RoomMatches:
    """Return rooms with `part` in their name, comparing `SCAN_MAX` of them or a few more.

    `cursor`: the number of a node and Redis's own cursor there, joined by a dash. A room on
    several nodes is found on the first of them only. Raises `BadRequest` for another cursor.
    """
    number, position = _parse_cursor(cursor)
    names = [rooms_name(node.id) for node in nodes]
    rows: dict[str, int] = {}
    examined = 0
    for place, node in enumerate(nodes):
        if node.number < number:
            continue
        if node.number > number:
            number, position = node.number, 0
        while True:
            reply: Any = client.zscan(names[place], position, count=SCAN)
            position, some = reply
            examined += len(some)
            found = [name for room, _ in some if part in (name := text(room))]
            known = sizes(client, names[:place], found)
            rows |= sizes(client, names, (room for room in found if not known[room]))
            if not position:
                break
            if len(rows) >= limit or examined >= SCAN_MAX:
                return RoomMatches(list(rows.items()), f"{number}-{position}", examined)
        is_full = len(rows) >= limit or examined >= SCAN_MAX
        if is_full and place + 1 < len(nodes):
            return RoomMatches(list(rows.items()), f"{nodes[place + 1].number}-0", examined)
    return RoomMatches(list(rows.items()), "", examined)


def _parse_cursor(cursor: str) -> tuple[int, int]:
    number, _, position = (cursor or "0-0").partition("-")
    return (
        check_number(number, "The cursor's node", lowest=0, highest=INT64_MAX),
        check_number(position, "The cursor's position", lowest=0, highest=INT64_MAX),
    )
