"""Schema entries of version 1 of the API."""

from imgo_site.names import INT64_MAX
from push.api import answers, push_stream, v1
from push.api.docs.examples import (
    ANSWERED_LINES,
    KEY_OF_DEVICES,
    KEY_STATE,
    LINES,
    METRICS,
    NEW_TOKEN,
    NODE,
    PUSH,
    RECORD,
    RECORD_OF_DEVICES,
    REFUSED,
    ROOM_RECORD,
    TOKEN,
)
from push.api.docs.operation import NDJSON, Answer, Content, Operation, Parameter, ref
from push.api.docs.parameters import (
    ACTING,
    KEY,
    LARGE,
    LINE_END,
    LOOKING,
    MISTAKE,
    NAME_SCHEMA,
    PAGE,
    ok,
)
from push.api.health import HealthView, ReadyView
from push.api.metrics import MetricsView
from push.api.schemas import PushRequest, TokenRequest

PUSHING, TOKENS, RUNNING = "Push", "Tokens", "Health and metrics"
TAGS = (PUSHING, LOOKING, ACTING, TOKENS, RUNNING)

ID = Parameter(
    "message_id",
    {"type": "integer", "minimum": 1, "maximum": INT64_MAX},
    "The id from the answer to the push.",
    1043,
    "path",
    True,
)
DEDUPE_ID = Parameter(
    "dedupe_id", NAME_SCHEMA, "The dedupe id that the push had.", "order-7", "query", True
)
KEY_FILTER = Parameter("key", {**NAME_SCHEMA, "minLength": 0}, "Only the token of this key.", "u1")

PUSHES = Operation(
    "push",
    PUSHING,
    "Push to a key, keys, a room or everyone",
    {
        202: Answer(
            "Accepted: a push to keys is stored.",
            (
                Content(
                    {
                        "oneOf": [
                            ref(answers.Accepted),
                            {
                                "type": "array",
                                "items": {
                                    "oneOf": [
                                        ref(answers.Accepted),
                                        ref(answers.Refused),
                                    ]
                                },
                            },
                        ]
                    },
                    {"one": {"id": "1043"}, "many": [{"id": "1044"}, REFUSED]},
                ),
            ),
        )
    },
    "One object, or an array of at most {MAX_PUSHES} of them. An array is accepted together and "
    "answered item by item, in order; an item that is no push is answered with its error and does "
    "not keep the others back. A push names at "
    "most {MAX_KEYS} keys, its body has at most {MAX_BODY} bytes, the request at most "
    "{MAX_REQUEST}. Whatever the content type says, the request is read as JSON in UTF-8.",
    request=(
        Content(
            {
                "oneOf": [
                    ref(PushRequest),
                    # Each item has its own answer, so an invalid item is not a bad request.
                    {"type": "array", "items": {"anyOf": [ref(PushRequest), {}]}},
                ]
            },
            {
                "to a key": PUSH,
                "to keys": {
                    "to": {"keys": ["u1", "u2"]},
                    "body": [1, 2.50],
                    "ttl": 3600,
                    "dedupe_id": "order-17",
                },
                "to a room": {"to": {"room": "lobby"}, "body": "hello", "ensure": True},
                "to everyone": {"to": {"all": True}, "body": None, "op": 1000},
                "many": [PUSH, {"to": {"key": "u2"}, "body": 7, "store": "never"}],
            },
        ),
    ),
    errors={400: MISTAKE, 413: LARGE},
)
STREAM = Operation(
    "push_stream",
    PUSHING,
    "Push a stream of objects, one a line",
    {
        200: Answer(
            'One line for each line that is not empty, in order: `{"id": ...}` or '
            '`{"error": {...}}`, as in the array of `POST /api/v1/pushes`.',
            (Content({"type": "string"}, {"two of three": ANSWERED_LINES}, NDJSON),),
        )
    },
    "Newline-delimited JSON: each line is a PushRequest. Lines are accepted, committed and "
    "answered while the request is open: send with `Transfer-Encoding: chunked` and read along. "
    "So the status is 200 also when lines are refused, and there is no limit of lines. A line "
    "that is longer than MAX_BODY ({MAX_BODY} bytes) and 16384 more is answered 413 and ends the "
    "stream. Under a node (Daphne) the answers come when the request is complete; under gunicorn "
    "line by line.",
    request=(
        # The view accepts both names. Tools that cannot send the second one can send the first.
        Content({"type": "string"}, {"three lines": LINES}, "text/plain"),
        Content({"type": "string"}, {}, NDJSON),
    ),
    needs_body=False,
)
RECORD_OF = Operation(
    "push_record",
    PUSHING,
    "What became of a push",
    ok(
        "The record, with a page of its keys in the order they were pushed to.",
        answers.PushRecord,
        keys=RECORD,
        devices=RECORD_OF_DEVICES,
        room=ROOM_RECORD,
    ),
    "`state` of a key: `pending`, `acknowledged`, `expired`, `dropped` with a `reason`, or `live` "
    "when it was not to be stored. Members that have nothing to say are left out. A record is "
    "kept for {RECORD_KEEP} seconds, and at least for the message's lifetime.",
    (ID, *PAGE),
    errors={
        400: MISTAKE,
        404: "There is no record: the push was never accepted, or its record has expired.",
    },
)

OPERATIONS: dict[tuple[type, str], Operation] = {
    (v1.PushesView, "POST"): PUSHES,
    (push_stream.StreamView, "POST"): STREAM,
    (v1.PushView, "GET"): RECORD_OF,
    (v1.PushesView, "DELETE"): Operation(
        "cancel_push_by_dedupe_id",
        PUSHING,
        "Cancel a push by its dedupe id",
        ok(
            "As `DELETE /api/v1/pushes/{{id}}`.",
            answers.Cancelled,
            cancelled={"id": "1043", "state": "cancelled", "cancelled": 1, "too_late": 0},
        ),
        "For the API key that has pushed it, within {DEDUPE_WINDOW} seconds.",
        (DEDUPE_ID,),
        errors={400: MISTAKE, 404: "The API key has used this dedupe id for no push."},
    ),
    (v1.PushView, "DELETE"): Operation(
        "cancel_push",
        PUSHING,
        "Cancel a push",
        ok(
            "Scheduled and pending deliveries are settled as `dropped: cancelled`.",
            answers.Cancelled,
            partly={"id": "1043", "state": "partly", "cancelled": 1, "too_late": 1},
        ),
        "For the API key that has pushed it, or one with the scope `admin`. A push to a room or to "
        "all, and one that is not stored, can be cancelled until it is sent. Sessions that have "
        "the message and ask for retractions are told to take it back.",
        (ID,),
        errors={
            400: MISTAKE,
            404: "There is no record: the push was never accepted, or its record has expired.",
        },
    ),
    (v1.KeyView, "GET"): Operation(
        "key",
        LOOKING,
        "The sessions of a key, and what is pending for it",
        ok(
            "The key. An unknown key has no sessions and no pending messages.",
            answers.KeyState,
            online=KEY_STATE,
            devices=KEY_OF_DEVICES,
        ),
        "A key that ends in /sessions or /devices cannot be requested.",
        parameters=(KEY,),
        errors={400: MISTAKE, 404: LINE_END},
    ),
    (v1.KeySessionsView, "DELETE"): Operation(
        "close_sessions",
        ACTING,
        "Close the sessions of a key",
        ok("The sessions are being closed.", answers.Closed, 202, two={"closed": 2}),
        "Their close code tells clients not to reconnect.",
        (KEY,),
        errors={400: MISTAKE, 404: LINE_END},
    ),
    (v1.NodesView, "GET"): Operation(
        "nodes",
        LOOKING,
        "The live nodes",
        ok("All live nodes.", answers.NodePage, one={"count": 1, "results": [NODE]}),
    ),
    (v1.StatsView, "GET"): Operation(
        "stats",
        LOOKING,
        "Totals",
        ok("Totals.", answers.Stats, now={"nodes": 2, "sessions": 1200, "rooms": 31, "hooks": []}),
    ),
    (v1.TokensView, "GET"): Operation(
        "tokens",
        TOKENS,
        "List tokens",
        ok("The tokens, sorted by key.", answers.TokenPage, one={"count": 1, "results": [TOKEN]}),
        parameters=(KEY_FILTER, *PAGE),
        errors={400: MISTAKE},
    ),
    (v1.TokensView, "POST"): Operation(
        "make_token",
        TOKENS,
        "Give a key a token",
        ok("The token is created.", answers.NewToken, 201, made=NEW_TOKEN),
        "It replaces the key's earlier token. The request has at most {MAX_REQUEST} bytes.",
        request=(
            Content(
                TokenRequest,
                {
                    "for an hour": {"key": "u1", "expires_in": 3600, "rooms": ["a", "team-*"]},
                    "with a text of your own": {"key": "u1", "token": "a text of your own"},
                },
            ),
        ),
        errors={400: MISTAKE, 413: LARGE},
    ),
    (v1.TokenView, "GET"): Operation(
        "token",
        TOKENS,
        "The token of a key",
        ok("The token without its text.", answers.TokenRow, one=TOKEN),
        parameters=(KEY,),
        errors={400: MISTAKE, 404: "The key has no token."},
    ),
    (v1.TokenView, "DELETE"): Operation(
        "revoke_token",
        TOKENS,
        "Revoke the token of a key",
        {204: Answer("Revoked; the open sessions of its key are being closed.")},
        parameters=(KEY,),
        errors={400: MISTAKE, 404: "The key has no token."},
    ),
    (MetricsView, "GET"): Operation(
        "metrics",
        RUNNING,
        "What this process counts",
        {
            200: Answer(
                "Prometheus's text format.",
                (Content({"type": "string"}, {"some": METRICS}, "text/plain"),),
            )
        },
    ),
    (HealthView, "GET"): Operation(
        "healthz",
        RUNNING,
        "Whether this process serves",
        ok("All listeners are ready.", answers.Health, serves={"status": "ok"})
        | ok(
            "The process is starting or stopping.",
            answers.Health,
            503,
            starts={"status": "starting"},
        ),
    ),
    (ReadyView, "GET"): Operation(
        "readyz",
        RUNNING,
        "Whether this process can do its job",
        ok(
            "The process can serve. `degraded` names the parts that are slow.",
            answers.Readiness,
            fine={
                "status": "ok",
                "checks": {"database": "ok", "workers": "ok", "layer": "ok"},
            },
            degraded={
                "status": "degraded",
                "checks": {
                    "database": "ok",
                    "workers": "nobody takes tasks for partition 2",
                    "layer": "ok",
                },
            },
        )
        | ok(
            "The process cannot serve: the database or Redis is unavailable.",
            answers.Readiness,
            503,
            redis_away={
                "status": "unavailable",
                "checks": {"database": "ok", "workers": "ok", "layer": "cannot be reached"},
            },
        ),
    ),
}

TYPES = (
    answers.Accepted,
    answers.Refused,
    answers.Problem,
    answers.PushRecord,
    answers.Cancelled,
    answers.KeyState,
    answers.Closed,
    answers.NodePage,
    answers.Stats,
    answers.TokenPage,
    answers.NewToken,
    answers.Health,
    answers.Readiness,
    PushRequest,
    TokenRequest,
)
