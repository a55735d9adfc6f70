"""goim v2's paths: same parameters, same answers, for its callers with an API key.

Source: goim's docs/push.md and its logic's HTTP server. `mids` are our keys; `keys` are ours too,
or with `GOIM_TRUSTED` the keys of goim's connections, which are there or not: nothing is kept for
them, as goim keeps nothing. A room is `type://room`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.http import HttpRequest, JsonResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request

from accounts.authentication import caller
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError
from imgo_site.names import INT32_MAX, INT64_MAX, check_name, check_number
from push.accept.accept import Push, check_op
from push.accept.frame_bodies import is_json
from push.accept.group_commit import accept_in_group
from push.api.legacy import LegacyView
from push.api.problems import CODE_OK, as_imgo_error, goim_response
from push.api.v1 import body_of
from push.registry.base import NodeEntry
from push.registry.select import get_registry

TOP_MAX = 1_000  # rooms that one question may want
TYPE_MAX, ROOM_MAX = 100, 150  # characters; together, with `://`, they fit a name
ROOMS_MAX = 100  # rooms that one question may name
# What goim's own configuration tells clients to do: seconds, but for the factor and the jitter.
BACKOFF = {"max_delay": 300, "base_delay": 3, "factor": 1.8, "jitter": 0.3}
BEATS = 3  # heartbeats within HEARTBEAT_TIMEOUT, of which the last but one may be missed


def done(data: Any = None) -> JsonResponse:
    """goim's answer to success."""
    answer = {"code": CODE_OK, "message": ""}
    return JsonResponse(answer if data is None else {**answer, "data": data})


class GoimView(LegacyView):
    """Answers `{"code": 0}` and what else a view returns."""

    def refusal(self, error: ImgoError) -> JsonResponse:
        """The answer to an error."""
        return goim_response(error)

    def wrong_method(self, error: MethodNotAllowed) -> JsonResponse:
        """Return the answer to a wrong method, in the form of all others."""
        known = as_imgo_error(error)
        assert known is not None
        return self.refusal(known)


class _PushView(GoimView):
    """A push: the message is the body, raw; `?operation=` is its op."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_BODY"

    def post(self, request: Request) -> JsonResponse:
        """Accept the push, and answer when it is stored."""
        query = request.query_params
        op = check_number(query.get("operation"), "operation", lowest=-INT64_MAX, highest=INT64_MAX)
        check_op(op, "operation")
        body = body_of(request)
        push = Push(body, op=op, is_json=is_json(body), **self.target(request))
        accept_in_group(push, caller(request).name)
        return done()

    def target(self, request: Request) -> Mapping[str, Any]:
        """Whom it is for: fields of `Push`."""
        raise NotImplementedError


class PushKeysView(_PushView):
    """A push to connections or keys."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return the keys that `?keys=a&keys=b` names."""
        keys = tuple(request.query_params.getlist("keys"))
        if not keys:
            raise BadRequest("keys is missing.")
        return {"keys": keys, "store": not conf.GOIM_TRUSTED}


class PushMidsView(_PushView):
    """A push to users, by their numbers."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """`?mids=1&mids=2`, or with commas between them."""
        named = ",".join(request.query_params.getlist("mids")).split(",")
        mids = [check_number(mid, "mids", lowest=1, highest=INT64_MAX) for mid in named]
        return {"keys": tuple(map(str, mids))}


class PushRoomView(_PushView):
    """A push to a room."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return the room that `?type=live&room=1000` names."""
        return {"room": room_of(_wanted(request, "type"), _wanted(request, "room"))}


class PushAllView(_PushView):
    """A push to everyone."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """`?speed=`: sessions that it reaches in a second, of all nodes together; 0: at once."""
        speed = request.query_params.get("speed") or 0
        return {
            "to_all": True,
            "speed": check_number(speed, "speed", lowest=0, highest=INT32_MAX),
        }


class OnlineTopView(GoimView):
    """The fullest rooms of a type."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """Answer `?type=live&limit=10`: the names and sizes of so many rooms."""
        start = room_of(_wanted(request, "type"), "")
        limit = check_number(_wanted(request, "limit"), "limit", lowest=1, highest=TOP_MAX)
        rooms = get_registry().rooms()
        of_type = [(count, room) for room, count in rooms.items() if room.startswith(start)]
        top = sorted(of_type, key=lambda one: (-one[0], one[1]))[:limit]
        return done([{"room_id": room[len(start) :], "count": count} for count, room in top])


class OnlineRoomView(GoimView):
    """How many sessions are in rooms."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """Answer `?type=live&rooms=1000&rooms=2000`: the size of each."""
        kind, rooms = _wanted(request, "type"), request.query_params.getlist("rooms")
        if not rooms:
            raise BadRequest("rooms is missing.")
        if len(rooms) > ROOMS_MAX:
            raise BadRequest(f"A question names at most {ROOMS_MAX} rooms.")
        if not all(rooms):
            raise BadRequest("One of rooms is empty.")
        sizes = get_registry().sizes([room_of(kind, room) for room in rooms])
        return done(dict(zip(rooms, sizes, strict=True)))


class OnlineTotalView(GoimView):
    """How many sessions there are, and from how many addresses."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:  # noqa: ARG002 - DRF's signature
        """An address that has sessions on two nodes counts twice, as with goim."""
        nodes = get_registry().nodes()
        return done(
            {
                "ip_count": sum(node.addresses for node in nodes),
                "conn_count": sum(node.sessions for node in nodes),
            }
        )


class NodesWeightedView(GoimView):
    """Where a client may connect, and how often it shows a sign of life."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """The nodes that have a `NODE_ADDRESS`, the emptiest first; else the host asked."""
        host = _host(request)
        open_nodes = [node for node in get_registry().nodes() if not node.is_draining]
        nodes = sorted(open_nodes, key=lambda node: node.sessions)
        return done(
            {
                "domain": host,
                "tcp_port": conf.TCP_PORT,
                "ws_port": conf.WS_PORT or conf.HTTP_PORT,
                "wss_port": int(request.get_port()) if request.is_secure() else 0,
                "heartbeat": int(conf.HEARTBEAT_TIMEOUT / BEATS),
                "heartbeat_max": BEATS - 1,
                "nodes": [node.address for node in nodes if node.address] or [host],
                "backoff": BACKOFF,
            }
        )


class NodesInstancesView(GoimView):
    """The nodes, as goim's discovery service shows its comets."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:  # noqa: ARG002 - DRF's signature
        """All of them, in order of their numbers."""
        return done([_instance(node) for node in get_registry().nodes()])


def _instance(node: NodeEntry) -> dict[str, Any]:
    return {
        "region": "",
        "zone": "",
        "env": "",
        "appid": "goim.comet",
        "hostname": node.name,
        "addrs": [],
        "version": "",
        "latest_timestamp": int(node.since * 1_000_000_000),
        "metadata": {
            "addrs": node.address,
            "conn_count": str(node.sessions),
            "ip_count": str(node.addresses),
            "offline": "false",
            "weight": "10",
        },
    }


def room_of(kind: str, room: str) -> str:
    """The name of goim's room of a type. Raises `BadRequest`."""
    if len(kind) > TYPE_MAX or len(room) > ROOM_MAX:
        raise BadRequest(f"A type has at most {TYPE_MAX} characters, a room {ROOM_MAX}.")
    return check_name(f"{kind}://{room}", "room")


def _wanted(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise BadRequest(f"{name} is missing.")
    return str(value)


def _host(request: HttpRequest | Request) -> str:
    """The host that was asked, without the port."""
    host, _, port = request.get_host().rpartition(":")
    return host if host and port.isdigit() else request.get_host()
