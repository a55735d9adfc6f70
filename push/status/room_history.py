"""Pages of a room's history, as clients (op 24) and callers of the API get them."""

from collections.abc import Mapping
from typing import NamedTuple

from imgo_site.errors import BadRequest, NotFound
from imgo_site.names import INT64_MAX, check_name, check_number
from imgo_site.room_policies import policy_of
from offline import stream_epochs, streams
from offline.streams import KeptMessage, Place
from push.wire import compact_json, json_body

LIMIT = 100  # messages of a page, unless asked for otherwise
LIMIT_MAX = 1_000
ORDERS = ("newest", "oldest")
OPTIONS = ("since", "before", "limit", "order")
MEMBERS = ("room", *OPTIONS)  # of a query


class HistoryQuery(NamedTuple):
    """Which kept messages to read: those of `room` with `since` < offset < `before`.

    `newest`: begin with the newest, else with the oldest.
    """

    room: str
    since: int | None
    before: int | None
    limit: int
    newest: bool


def query_of(value: object) -> HistoryQuery:
    """Return the query that these members ask for. Raises `BadRequest`.

    `room`; `since` and `before` (offsets), `limit` and `order` ("newest" or "oldest") are optional.
    Without an order it is "oldest" if there is a `since`, else "newest".
    """
    if not isinstance(value, Mapping):
        raise BadRequest('The query is an object, such as {"room": "chat-1", "limit": 20}.')
    room = check_name(value.get("room"), "room")
    since = _offset(value, "since")
    before = _offset(value, "before")
    limit = check_number(value.get("limit", LIMIT), "limit", lowest=1, highest=LIMIT_MAX)
    order = value.get("order", "newest" if since is None else "oldest")
    if order not in ORDERS:
        raise BadRequest(f"order is one of: {', '.join(ORDERS)}.")
    return HistoryQuery(room, since, before, limit, order == "newest")


def _offset(value: Mapping[str, object], name: str) -> int | None:
    if value.get(name) is None:
        return None
    return check_number(value[name], name, lowest=0, highest=INT64_MAX)


def position(room: str) -> Place:
    """Return the present position of a room; it creates no stream. Raises `NotFound`.

    A room that was never used has the position in which its stream will begin.
    """
    _check_kept(room)
    state = streams.find_states([room]).get(room)
    return Place(stream_epochs.next_epoch(), 0) if state is None else Place(state.epoch, state.top)


def page(query: HistoryQuery, bytes_max: int) -> bytes:
    """Return one page of a room's history as JSON.

    It has the room, its position (`epoch`, `offset`), the `messages`, and `more`: whether further
    ones match. It ends early above `bytes_max` bytes of bodies, after one message at least.

    Raises `NotFound` if the room keeps no messages.
    """
    now = position(query.room)  # before the messages: it promises none that the page lacks
    kept_messages = streams.read_history(
        query.room,
        since=query.since,
        before=query.before,
        limit=query.limit + 1,
        newest=query.newest,
    )
    rows: list[bytes] = []
    size = 0
    for kept in kept_messages[: query.limit]:
        size += len(kept.body)
        if rows and size > bytes_max:
            break
        rows.append(_row(kept))
    # Messages that were kept between the two reads may be in the page.
    newest = max((kept.offset for kept in kept_messages[: len(rows)]), default=0)
    head = compact_json(
        {
            "room": query.room,
            "epoch": now.epoch,
            "offset": max(now.offset, newest),
            "more": len(rows) < len(kept_messages),
        }
    )
    return b'%b,"messages":[%b]}' % (head[:-1], b",".join(rows))


def _row(kept: KeptMessage) -> bytes:
    # The body is inserted as it is.
    text = b'{"offset":%d,"id":"%d","op":%d,"at":%.3f%b,"body":%b}'
    key = b',"from":%b' % compact_json(kept.sender) if kept.sender else b""
    return text % (kept.offset, kept.id, kept.op, kept.at, key, json_body(kept.body, kept.is_json))


def _check_kept(room: str) -> None:
    if not policy_of(room).history:
        raise NotFound(f"The room {room!r} keeps no messages: no policy in ROOMS gives it history.")
