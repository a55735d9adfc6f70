"""Schema entries of goim v2's paths."""

from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from imgo_site.names import INT32_MAX, INT64_MAX, REQUEST_LINE_MAX
from push.api import goim
from push.api.docs.imgo import RAW, RAW_TOLD
from push.api.docs.operation import Answer, Content, Operation, Parameter
from push.api.schemas import NAME
from push.wire import FIRST_OWN_OP, Op

TAG = "goim's paths"


class Code(TypedDict):
    """goim's answer. 0: done; below: an HTTP status with a minus."""

    code: Annotated[int, Meta(le=0)]
    message: str


class TopRoom(TypedDict):
    """A room of the requested type."""

    room_id: str
    count: int


class TopRooms(Code):
    """The fullest rooms first."""

    data: list[TopRoom]


class RoomSizes(Code):
    """Answer with the number of sessions of each room."""

    data: dict[str, int]


class Online(TypedDict):
    """Addresses and sessions."""

    ip_count: int
    conn_count: int


class OnlineTotals(Code):
    """Answer with the addresses and sessions of all nodes together."""

    data: Online


class Backoff(TypedDict):
    """Seconds between a client's attempts, the factor from one to the next, and the jitter."""

    max_delay: int
    base_delay: int
    factor: float
    jitter: float


class Weighted(TypedDict):
    """Where to connect. `heartbeat`: seconds."""

    domain: str
    tcp_port: int
    ws_port: int
    wss_port: int
    heartbeat: int
    heartbeat_max: int
    nodes: list[str]
    backoff: Backoff


class WeightedNodes(Code):
    """The emptiest node first."""

    data: Weighted


class Metadata(TypedDict):
    """Metadata of a node, as strings only, like goim's."""

    addrs: str
    conn_count: str
    ip_count: str
    offline: Literal["false"]
    weight: str


class Instance(TypedDict):
    """A node. `latest_timestamp`: when it started, Unix time in nanoseconds."""

    region: str
    zone: str
    env: str
    appid: Literal["goim.comet"]
    hostname: str
    addrs: list[str]
    version: str
    latest_timestamp: int
    metadata: Metadata


class Instances(Code):
    """The live nodes, in the form that goim's discovery service answers with."""

    data: list[Instance]


def _list_of(schema: dict[str, Any], **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1, **limits}


TEXT = {"type": "string", **NAME}
KIND, ROOM_NAME = ({**TEXT, "maxLength": most} for most in (goim.TYPE_MAX, goim.ROOM_MAX))
OPERATION = Parameter(
    "operation",
    {
        "anyOf": [
            {"type": "integer", "enum": [int(Op.MESSAGE)]},
            {"type": "integer", "minimum": FIRST_OWN_OP, "maximum": INT32_MAX},
        ]
    },
    "The message's op: sessions that accept it get the message.",
    FIRST_OWN_OP,
    is_required=True,
)
AS_MANY = f"As many as fit the request's first line of {REQUEST_LINE_MAX} bytes."
KEYS = Parameter("keys", _list_of(TEXT), f"Keys. {AS_MANY}", ["u1", "u2"], is_required=True)
MID = {"type": "integer", "minimum": 1, "maximum": INT64_MAX}
MIDS = Parameter("mids", _list_of(MID), f"Users. {AS_MANY}", [1, 2], is_required=True)
TYPE = Parameter("type", KIND, "The room's type.", "live", is_required=True)
ROOM = Parameter("room", ROOM_NAME, "The room.", "1000", is_required=True)
ROOMS = Parameter(
    "rooms",
    _list_of(ROOM_NAME, maxItems=goim.ROOMS_MAX),
    "Rooms of the type.",
    ["1000"],
    is_required=True,
)
SPEED = Parameter(
    "speed",
    {"type": "integer", "minimum": 0, "maximum": INT32_MAX},
    "Sessions that it reaches in a second; 0: all at once.",
    1000,
)
LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": goim.TOP_MAX},
    "Rooms at most.",
    10,
    is_required=True,
)
PLATFORM = Parameter("platform", {"type": "string"}, "Ignored.", "web")

OK = {"code": 0, "message": ""}
DONE = {200: Answer("Accepted.", (Content(Code, {"done": OK}),))}
BAD = {400: "`code` -400: a parameter is missing or wrong."}
LARGE = {413: "`code` -413: the message or the request is too large."}

NODES = {
    "domain": "push.example.com",
    "tcp_port": 8080,
    "ws_port": 8090,
    "wss_port": 443,
    "heartbeat": 100,
    "heartbeat_max": 2,
    "nodes": ["192.0.2.1"],
    "backoff": goim.BACKOFF,
}
INSTANCE = {
    "region": "",
    "zone": "",
    "env": "",
    "appid": "goim.comet",
    "hostname": "node1:8000",
    "addrs": [],
    "version": "",
    "latest_timestamp": 1795671942500000000,
    "metadata": {
        "addrs": "192.0.2.1",
        "conn_count": "3",
        "ip_count": "2",
        "offline": "false",
        "weight": "10",
    },
}


def _push(name: str, to: str, *parameters: Parameter, more: str = "") -> Operation:
    return Operation(
        f"goim_push_{name}",
        TAG,
        f"Push to {to}",
        DONE,
        f"{RAW_TOLD} {more}".strip(),
        (OPERATION, *parameters),
        RAW,
        BAD | LARGE,
    )


def _query(name: str, title: str, kind: type, data: Any, *parameters: Parameter) -> Operation:
    schema_hints = {200: Answer(title + ".", (Content(kind, {"found": {**OK, "data": data}}),))}
    return Operation(
        f"goim_{name}", TAG, title, schema_hints, "", parameters, errors=BAD if parameters else {}
    )


OPERATIONS: dict[tuple[type, str], Operation] = {
    (goim.PushKeysView, "POST"): _push(
        "keys", "keys", KEYS, more="With GOIM_TRUSTED: to goim's connections, now or never."
    ),
    (goim.PushMidsView, "POST"): _push("mids", "users", MIDS),
    (goim.PushRoomView, "POST"): _push("room", "a room", TYPE, ROOM),
    (goim.PushAllView, "POST"): _push("all", "everyone", SPEED),
    (goim.OnlineTopView, "GET"): _query(
        "online_top",
        "The fullest rooms of a type",
        TopRooms,
        [{"room_id": "1000", "count": 100}],
        TYPE,
        LIMIT,
    ),
    (goim.OnlineRoomView, "GET"): _query(
        "online_room", "How many sessions are in rooms", RoomSizes, {"1000": 100}, TYPE, ROOMS
    ),
    (goim.OnlineTotalView, "GET"): _query(
        "online_total",
        "How many sessions there are",
        OnlineTotals,
        {"ip_count": 2, "conn_count": 3},
    ),
    (goim.NodesWeightedView, "GET"): _query(
        "nodes_weighted", "Where a client may connect", WeightedNodes, NODES, PLATFORM
    ),
    (goim.NodesInstancesView, "GET"): _query("nodes_instances", "The nodes", Instances, [INSTANCE]),
}

TYPES = (Code, TopRooms, RoomSizes, OnlineTotals, WeightedNodes, Instances)
