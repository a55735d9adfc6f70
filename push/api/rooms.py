"""Views of rooms, version 1 of the API: who is in them, and what those with history keep."""

from typing import ClassVar

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from imgo_site.errors import NotFound, Unavailable
from imgo_site.names import check_name
from imgo_site.room_policies import policy_of
from offline import outbox_queue, stream_retention
from offline.outbox_queue import Busy
from push.api import paging
from push.api.base import V1View
from push.api.paging import window_of
from push.api.room_answers import (
    Emptied,
    MemberPage,
    MemberRow,
    PositionState,
    RoomPage,
    RoomRow,
)
from push.presence.select import get_presence
from push.registry.select import get_registry
from push.status import room_history

HISTORY_BYTES = 4_194_304  # of the bodies in one answer


class RoomsView(V1View):
    """Rooms that have sessions."""

    scopes: ClassVar = {"GET": "read"}
    query_names: ClassVar = {"GET": ("room", *paging.NAMES)}

    def get(self, request: Request) -> Response:
        """Return one page of rooms and their numbers of sessions, fullest first.

        With `?room=` return the members of that room, for names that no path can tell from those
        of the other views.
        """
        if "room" in request.query_params:
            return Response(members(request, request.query_params["room"]))
        rooms = sorted(get_registry().rooms().items(), key=lambda room: (-room[1], room[0]))
        rows: list[RoomRow] = [{"room": room, "sessions": n} for room, n in rooms]
        page: RoomPage = {"count": len(rows), "results": rows[window_of(request)]}
        return Response(page)


class RoomView(V1View):
    """Members of one room."""

    scopes: ClassVar = {"GET": "read"}
    query_names: ClassVar = {"GET": paging.NAMES}

    def get(self, request: Request, room: str) -> Response:
        """Return one page of the room's sessions, or its keys; 404 if it has none."""
        return Response(members(request, room))


def members(request: Request, room: str) -> MemberPage:
    """Return one page of a room's sessions; of a room with presence, one of its keys.

    `?limit=0` counts without reading them.

    Raises `BadRequest`, `NotFound`, `Unavailable`.
    """
    check_name(room, "room")
    window = window_of(request, lowest=0)
    if policy_of(room).presence:
        return _keys(room, window)
    if window.start == window.stop:
        (count,) = get_registry().sizes([room])
        _check_somebody(room, count)
        return {"room": room, "sessions": count, "count": count, "results": []}
    sessions = get_registry().members(room)
    _check_somebody(room, len(sessions))
    rows: list[MemberRow] = [{"key": key, "session": session} for key, session in sessions]
    return {
        "room": room,
        "sessions": len(rows),
        "count": len(rows),
        "results": rows[window],
    }


def _keys(room: str, window: slice) -> MemberPage:
    page = get_presence().page(room, window)
    _check_somebody(room, page.count)
    answer: MemberPage = {
        "room": room,
        "sessions": get_registry().sizes([room])[0],
        "count": page.count,
        "version": page.version,
        "results": [{"key": key, "info": info} for key, info in page.parsed()],
    }
    if page.is_settling:
        answer["settling"] = True
    return answer


def _check_somebody(room: str, count: int) -> None:
    """Raise `NotFound` for an empty room."""
    if not count:
        raise NotFound(f"Nobody is in the room {room!r}.")


class PositionView(V1View):
    """Position of a room with history."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request, room: str) -> Response:  # noqa: ARG002
        """Return the present position; 404 if the room has no history.

        An application asks for it before it loads its own state. A page that shows this state
        subscribes from the position, and misses nothing.
        """
        place = room_history.position(check_name(room, "room"))
        answer: PositionState = {"room": room, "epoch": place.epoch, "offset": place.offset}
        return Response(answer)


class RoomMessagesView(V1View):
    """Kept messages of a room with history."""

    scopes: ClassVar = {"GET": "read", "DELETE": "admin"}
    query_names: ClassVar = {"GET": room_history.OPTIONS}

    def get(self, request: Request, room: str) -> HttpResponse:
        """Return kept messages, by offset; 404 if the room has no history."""
        query = room_history.query_of({**request.query_params.dict(), "room": room})
        page = room_history.page(query, HISTORY_BYTES)
        return HttpResponse(page, content_type="application/json")

    def delete(self, request: Request, room: str) -> Response:  # noqa: ARG002
        """Forget the kept messages. Positions keep their meaning.

        The lock of its partition waits for a drain in progress. The messages that it has
        published are in the outbox until it ends, and so would not be deleted.
        """
        room_history.position(check_name(room, "room"))
        try:
            with outbox_queue.draining_all_of(room):
                deleted = stream_retention.empty(room)
        except Busy:
            raise Unavailable("The room's messages are being sent now: try again.") from None
        answer: Emptied = {"room": room, "deleted": deleted}
        return Response(answer)
