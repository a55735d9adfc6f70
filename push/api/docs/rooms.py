"""Schema entries of rooms."""

from imgo_site.names import INT64_MAX
from push.api import paging, room_answers, rooms
from push.api.docs.examples import KEPT
from push.api.docs.operation import Operation, Parameter, ref
from push.api.docs.parameters import ACTING, LOOKING, MISTAKE, NAME_SCHEMA, PAGE, ok
from push.status import room_history

ROOM = Parameter("room", NAME_SCHEMA, "A room. It may contain slashes.", "lobby", "path", True)
ROOM_FILTER = Parameter(
    "room",
    NAME_SCHEMA,
    "Answer as `/api/v1/rooms/{room}` does, for rooms whose names end in `/position` or "
    "`/messages`.",
    "lobby/messages",
)
PAGE_OR_COUNT = (
    Parameter(
        "limit",
        {"type": "integer", "minimum": 0, "maximum": paging.PAGE_MAX, "default": 100},
        "Number of rows in the page; 0: only the counts.",
        100,
    ),
    PAGE[1],
)
OFFSET = {"type": "integer", "minimum": 0, "maximum": INT64_MAX}
HISTORY = (
    Parameter("since", OFFSET, "Only offsets above this one.", 40),
    Parameter("before", OFFSET, "Only offsets below this one.", 58),
    Parameter(
        "limit",
        {
            "type": "integer",
            "minimum": 1,
            "maximum": room_history.LIMIT_MAX,
            "default": room_history.LIMIT,
        },
        "Highest number of messages.",
        100,
    ),
    Parameter(
        "order",
        {"type": "string", "enum": list(room_history.ORDERS)},
        "The messages that come first. Default: `oldest` with `since`, else `newest`.",
        "oldest",
    ),
)

NO_HISTORY = "No policy in ROOMS gives this room history."

OPERATIONS: dict[tuple[type, str], Operation] = {
    (rooms.RoomsView, "GET"): Operation(
        "rooms",
        LOOKING,
        "Rooms and their sizes",
        ok(
            "The rooms that have sessions, fullest first; with `room`, the sessions in that room.",
            {"anyOf": [ref(room_answers.RoomPage), ref(room_answers.MemberPage)]},
            one={"count": 1, "results": [{"room": "lobby", "sessions": 2}]},
        ),
        parameters=(ROOM_FILTER, *PAGE),
        errors={400: MISTAKE, 404: "The `room` has no sessions."},
    ),
    (rooms.RoomView, "GET"): Operation(
        "room",
        LOOKING,
        "Who is in a room",
        ok(
            "The sessions in the room; in a room with presence its keys, sorted.",
            room_answers.MemberPage,
            one={
                "room": "lobby",
                "sessions": 1,
                "count": 1,
                "results": [{"key": "u1", "session": "5938fe7d-1"}],
            },
            present={
                "room": "chat-1",
                "sessions": 2,
                "count": 1,
                "version": "9f3c2a10.57",
                "results": [{"key": "u1", "info": {"name": "Ann"}}],
            },
        ),
        parameters=(ROOM, *PAGE_OR_COUNT),
        errors={400: MISTAKE, 404: "The room has no sessions."},
    ),
    (rooms.PositionView, "GET"): Operation(
        "room_position",
        LOOKING,
        "The position of a room with history",
        ok(
            "The position of the room's latest message.",
            room_answers.PositionState,
            one={"room": "chat-1", "epoch": "9f3c2a10", "offset": 57},
        ),
        "Ask for it before you load your own state: a client that joins the room from this "
        "position misses nothing.",
        parameters=(ROOM,),
        errors={400: MISTAKE, 404: NO_HISTORY},
    ),
    (rooms.RoomMessagesView, "GET"): Operation(
        "room_messages",
        LOOKING,
        "Kept messages of a room with history",
        ok("A page of the kept messages.", room_answers.KeptPage, one=KEPT),
        "The page ends early above 4 MiB of bodies.",
        parameters=(ROOM, *HISTORY),
        errors={400: MISTAKE, 404: NO_HISTORY},
    ),
    (rooms.RoomMessagesView, "DELETE"): Operation(
        "empty_room",
        ACTING,
        "Forget a room's kept messages",
        ok(
            "The messages are deleted.", room_answers.Emptied, one={"room": "chat-1", "deleted": 57}
        ),
        "Positions stay valid: the next message has the next offset.",
        parameters=(ROOM,),
        errors={400: MISTAKE, 404: NO_HISTORY},
    ),
}

TYPES = (
    room_answers.RoomPage,
    room_answers.MemberPage,
    room_answers.PositionState,
    room_answers.KeptPage,
    room_answers.Emptied,
)
