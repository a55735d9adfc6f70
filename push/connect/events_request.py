"""Parser of a request for Server-Sent Events: its query and its headers."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from accounts.auth_body import REWIND_MAX, AuthBody, RoomRequest
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, NotAuthenticated
from imgo_site.names import INT64_MAX, check_name, check_number, printable
from imgo_site.room_policies import policy_of
from push.session.event_ids import SourcePositions, parse_event_id
from push.wire import compact_json

ONCE = (
    "token",
    "since",
    "rewind",
    "ack",
    "platform",
    "device",
    "presence",
)  # parameters that may not be repeated
FIELDS_MAX = 1_000  # parameters of a query
# A client waits this long before it connects again, milliseconds. It is drawn for each session, so
# that the clients of a node that dies do not all come back at once.
RETRY_MIN, RETRY_MAX = 1_000, 5_000

_NOTHING_KNOWN = RoomRequest("", 0)  # a position that no stream has


@dataclass(frozen=True, slots=True)
class EventsRequest:
    """What is asked for besides the auth body.

    `positions`: what the client has, by its Last-Event-ID; None without a usable one.
    `is_lost`: it has sent an id that cannot be used.
    `rewind`: number of the newest messages of each room to send; 0 for none.
    `presence`: whether changes of who is in the rooms are wanted.
    """

    positions: SourcePositions | None = None
    is_lost: bool = False
    rewind: int = 0
    presence: bool = True

    @property
    def resumed_at(self) -> float | None:
        """Return when the client had all that was sent to its key: Unix time, None if unknown."""
        return None if self.positions is None else self.positions.at

    def of_rooms(self, rooms: list[str]) -> dict[str, RoomRequest]:
        """Return what is asked for of each room of the session."""
        requests = {room: self._of_room(room) for room in rooms}
        if self.presence:
            return requests
        return {room: request._replace(presence=False) for room, request in requests.items()}

    def _of_room(self, room: str) -> RoomRequest:
        if self.is_lost:
            return _NOTHING_KNOWN
        position = self.positions.of(room) if self.positions is not None else None
        if position is not None:
            return RoomRequest(*position)
        # The one `rewind` is meant for those rooms that have a history.
        return RoomRequest(rewind=self.rewind) if policy_of(room).history else RoomRequest()


def opening_event(
    session_id: str,
    rooms: Mapping[str, object],
    request: EventsRequest,
    lasts: Mapping[str, float],
) -> bytes:
    """Return the first event of a stream. It has no id: blocks behind it have the position.

    `lasts`: the member about the time until the session expires, if there is one.
    """
    data: dict[str, object] = {"session": session_id, "rooms": rooms, **lasts}
    if request.is_lost:
        data["recovered"] = False
    retry = RETRY_MIN + secrets.randbelow(RETRY_MAX - RETRY_MIN)
    return b"retry: %d\nevent: open\ndata: %b\n\n" % (retry, compact_json(data))


def read_events_request(query: bytes, headers: Mapping[str, str]) -> tuple[AuthBody, EventsRequest]:
    """Return the auth body and what is asked for besides.

    `headers`: with names in lower case.

    Raises `BadRequest` for a mistake, also for a token above `MAX_AUTH_BODY`, and
    `NotAuthenticated` for credentials of another kind.
    """
    fields = _fields_of(query)
    rooms = list(dict.fromkeys(check_name(room, "room") for room in fields.get("rooms", ())))
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        raise BadRequest(f"A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms at most.")
    token = token_of(headers, fields)
    last_id = headers.get("last-event-id", "")
    positions = parse_event_id(last_id) if last_id else None
    request = EventsRequest(
        positions,
        is_lost=bool(last_id) and positions is None,
        rewind=_number(fields, "rewind", REWIND_MAX),
        presence=_first_value(fields, "presence") == "" or _is_on(fields, "presence"),
    )
    since = _number(fields, "since", INT64_MAX)
    body = AuthBody(
        token=token,
        rooms=tuple(rooms),
        names=True,
        renews=True,
        ack=_is_on(fields, "ack"),
        retractions=_is_on(fields, "retractions"),
        since=since,
        platform=printable(_first_value(fields, "platform")[:50]),
        device=printable(_first_value(fields, "device")[:100]),
        raw=token.encode("utf-8", "surrogateescape"),
    )
    return body, request


def token_of_query(query: bytes, headers: Mapping[str, str]) -> str:
    """Return the token of a request, "" for none. Raises as `read_events_request` does."""
    return token_of(headers, _fields_of(query))


def token_of(headers: Mapping[str, str], fields: Mapping[str, list[str]]) -> str:
    """Return the token in the Authorization header, or else in the query; "" for none."""
    token = _first_value(fields, "token")
    if authorization := headers.get("authorization", ""):
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise NotAuthenticated("Send the token as 'Authorization: Bearer <token>'.")
        token = token.strip()
    size = len(token.encode("utf-8", "surrogateescape"))
    most = max(conf.MAX_AUTH_BODY, conf.MAX_CLIENT_BODY)  # as for a frame with a token
    if size > most:
        raise BadRequest(f"The token has {size} bytes, and may have {most} (MAX_AUTH_BODY).")
    return token


def _fields_of(query: bytes) -> dict[str, list[str]]:
    try:
        fields = parse_qs(
            query.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise BadRequest("The query must be percent-encoded UTF-8.") from None
    if "room" in fields:
        raise BadRequest("Name each room with 'rooms', such as rooms=chat-1&rooms=chat-2.")
    for name in ONCE:
        if len(fields.get(name, ())) > 1:
            raise BadRequest(f"{name!r} may be given once.")
    return fields


def _first_value(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[0]


def _number(fields: Mapping[str, list[str]], name: str, highest: int) -> int:
    return check_number(_first_value(fields, name) or 0, f"{name!r}", lowest=0, highest=highest)


def _is_on(fields: Mapping[str, list[str]], name: str) -> bool:
    text = _first_value(fields, name)
    if text not in ("", "0", "1"):
        raise BadRequest(f"{name!r} is 1 or 0.")
    return text == "1"
