"""Schema entries of the paths of imgo (Go)."""

from typing import Any

from imgo_site.names import INT32_MAX, INT64_MAX
from push.api import legacy, legacy_answers
from push.api.docs.operation import BINARY, JSON, Answer, Content, Operation, Parameter, ref
from push.api.problems import RET_INTERNAL, RET_NO_SERVER, RET_OK, RET_PARAMETER
from push.api.schemas import TOKEN as TEXT
from push.api.schemas import ManyRequest

TAG = "Paths of imgo (Go)"

USER = {"type": "integer", "minimum": 0, "maximum": INT64_MAX}
NUMBER = {"type": "integer", "minimum": 0, "maximum": INT32_MAX}
UID = Parameter("uid", USER, "The user's id.", 1, is_required=True)
RID = Parameter("rid", NUMBER, "The room's number.", 1, is_required=True)
ENSURE = Parameter(
    "ensure",
    {"type": "string"},
    f"One of {', '.join(sorted(legacy.TRUE))}: wait for a busy node instead of dropping another "
    "message. Anything else is no.",
    "true",
)
KIND = Parameter(
    "type",
    {"type": "string", "enum": ["room", "server"]},
    "What to count.",
    "room",
    is_required=True,
)
SERVER = Parameter("server", NUMBER, "The server's number.", 1, is_required=True)

DONE = {200: Answer("Done.", (Content(legacy_answers.Ret, {"done": {"ret": RET_OK}}),))}
RAW = (
    Content(
        {"type": "string", "format": "binary", "minLength": 1},
        {"a message": '{"test": 1}'},
        BINARY,
    ),
)
RAW_TOLD = (
    "The message is the body of the request, any {MAX_BODY} bytes at most, whatever the content "
    "type says."
)
BAD = {400: f"`ret` {RET_PARAMETER}: a parameter is missing or wrong."}
LARGE = {413: f"`ret` {RET_PARAMETER}: the message or the request is too large."}


DIGITS = {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}
ZERO_UP = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,8})$"}


def _new_token(*numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a token request.

    `numbers`: schemas that a number may have besides digits in a string. None for forms, which
    contain only text.
    """
    return {
        "type": "object",
        "required": ["uid", "token", "expire"],
        "properties": {
            "uid": {"anyOf": [DIGITS, *({**n, "maximum": INT64_MAX} for n in numbers)]},
            "token": {"type": "string", "minLength": 1, **TEXT, "description": "Its text."},
            "expire": {
                "anyOf": [DIGITS, *({**n, "maximum": INT32_MAX} for n in numbers)],
                "description": "Seconds.",
            },
            "rid": {
                "anyOf": [ZERO_UP, *({**NUMBER} for _ in numbers)],
                "description": "The room that sessions of this token are in from the start.",
            },
        },
    }


TOKEN = {"uid": 1, "token": "a text of your own", "expire": 3600}
FORM = {"uid": "1", "token": "a text of your own", "expire": "3600"}

MESSAGES = {
    "ret": 0,
    "data": {"msgs": [{"msg": {"test": 1}, "mid": 1043, "gid": 0}]},
}

OPERATIONS: dict[tuple[type, str], Operation] = {
    (legacy.PushView, "POST"): Operation(
        "imgo_push", TAG, "Push to a user", DONE, RAW_TOLD, (UID,), RAW, BAD | LARGE
    ),
    (legacy.PushManyView, "POST"): Operation(
        "imgo_pushs",
        TAG,
        "Push to many users",
        DONE,
        "At most {MAX_KEYS} users, a message of at most {MAX_BODY} bytes.",
        request=(Content(ManyRequest, {"to two": {"u": [1, 2], "m": {"test": 1}}}),),
        errors=BAD | LARGE,
    ),
    (legacy.PushRoomView, "POST"): Operation(
        "imgo_push_room", TAG, "Push to a room", DONE, RAW_TOLD, (RID, ENSURE), RAW, BAD | LARGE
    ),
    (legacy.PushAllView, "POST"): Operation(
        "imgo_push_all", TAG, "Push to everyone", DONE, RAW_TOLD, (), RAW, BAD | LARGE
    ),
    (legacy.CountView, "GET"): Operation(
        "imgo_count",
        TAG,
        "Count sessions",
        {
            200: Answer(
                "How many sessions are where.",
                (
                    Content(
                        {
                            "anyOf": [
                                ref(legacy_answers.RoomCounts),
                                ref(legacy_answers.ServerCounts),
                            ]
                        },
                        {
                            "rooms": {"ret": 1, "data": [{"RoomId": 1, "Count": 2}]},
                            "servers": {"ret": 1, "data": [{"Server": 7, "Count": 2}]},
                        },
                    ),
                ),
            )
        },
        parameters=(KIND,),
        errors=BAD,
    ),
    (legacy.DeleteServerView, "POST"): Operation(
        "imgo_server_del",
        TAG,
        "Forget a server",
        DONE,
        "One that is alive comes back with its next sign of life.",
        (SERVER,),
        errors=BAD | {404: f"`ret` {RET_NO_SERVER}: there is no such server."},
    ),
    (legacy.NewTokenView, "POST"): Operation(
        "imgo_token_new",
        TAG,
        "Give a user a token",
        DONE,
        "A form or a JSON object; what the content type says does not matter. A form's fields may "
        "be in the query instead.",
        request=(
            Content(_new_token(), {"an hour": FORM}, "application/x-www-form-urlencoded"),
            Content(_new_token({"type": "integer", "minimum": 1}), {"an hour": TOKEN}),
        ),
        errors=BAD | LARGE,
    ),
    (legacy.MessagesView, "GET"): Operation(
        "imgo_msg_get",
        TAG,
        "What is pending for a user",
        {
            200: Answer(
                "At most OFFLINE_MAX ({OFFLINE_MAX}) messages, in order; a script for `&cb=`.",
                (
                    Content(legacy_answers.Messages, {"one": MESSAGES}, JSON),
                    Content(
                        {"type": "string"},
                        {"jsonp": 'callback({"ret": 0, "data": {"msgs": []}})'},
                        "application/javascript",
                    ),
                ),
            )
        },
        "A client's call: it needs the user's token and no API key. Reading removes nothing. For "
        "JSONP add `&cb=callback`, the name of a function: the answer is a script that calls it, "
        "and errors are told to it too, with status 200, as browsers run no script with another.",
        (
            UID,
            Parameter(
                "token",
                {"type": "string", "minLength": 1},
                "The user's token.",
                "secret",
                is_required=True,
            ),
            Parameter(
                "mid",
                {"type": "integer", "minimum": 0, "maximum": INT64_MAX},
                "Only messages with an id above this one.",
                0,
                is_required=True,
            ),
        ),
        errors=BAD
        | {
            401: "`ret` 65533: the token is wrong.",
            429: f"`ret` {RET_INTERNAL}: too many wrong tokens (AUTH_FAILURES) came from this "
            "address in the last minute; one attempt a second is looked at.",
        },
    ),
}

TYPES = (
    legacy_answers.Ret,
    legacy_answers.RoomCounts,
    legacy_answers.ServerCounts,
    legacy_answers.Messages,
    ManyRequest,
)
