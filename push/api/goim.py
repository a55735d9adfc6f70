"""Views for goim v2's paths: goim's parameters and answers, with an API key.

Source: goim's docs/push.md and the HTTP server of its logic service. `mids` are our keys. `keys`
are our keys too; with `GOIM_TRUSTED` they are the keys of goim's connections. Messages to
connections are not stored, as in goim. A room is named `type://room`.
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

TOP_MAX = 1_000  # rooms that one answer may list
TYPE_MAX, ROOM_MAX = 100, 150  # characters; joined with `://` they fit a name
ROOMS_MAX = 100  # rooms that one request may name
# From goim's own configuration. The delays are seconds; factor and jitter have no unit.
BACKOFF = {"max_delay": 300, "base_delay": 3, "factor": 1.8, "jitter": 0.3}
HEARTBEATS_PER_TIMEOUT = 3  # heartbeats within HEARTBEAT_TIMEOUT; a client may miss all but one


def done(data: Any = None) -> JsonResponse:
    """Return goim's answer for success, with `data` if it is not None."""
    answer = {"code": CODE_OK, "message": ""}
    return JsonResponse(answer if data is None else {**answer, "data": data})


class GoimView(LegacyView):
    """Base view for goim's paths: errors are answered in goim's form."""

    def refusal(self, error: ImgoError) -> JsonResponse:
        """Return goim's answer to an error."""
        return goim_response(error)

    def wrong_method(self, error: MethodNotAllowed) -> JsonResponse:
        """Return the answer to a wrong method, in the form of all other errors."""
        imgo_error = as_imgo_error(error)
        assert imgo_error is not None
        return self.refusal(imgo_error)


class _PushView(GoimView):
    """Base of the push views: the raw request body is the message; `?operation=` is its op."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_BODY"

    def post(self, request: Request) -> JsonResponse:
        """Accept the push and answer after it is stored."""
        query = request.query_params
        op = check_number(query.get("operation"), "operation", lowest=-INT64_MAX, highest=INT64_MAX)
        check_op(op, "operation")
        body = body_of(request)
        push = Push(body, op=op, is_json=is_json(body), **self.target(request))
        accept_in_group(push, caller(request).name)
        return done()

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return the target of the push, as fields of `Push`."""
        raise NotImplementedError


class PushKeysView(_PushView):
    """Push to keys, or with `GOIM_TRUSTED` to connections."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return the keys that `?keys=a&keys=b` names."""
        keys = tuple(request.query_params.getlist("keys"))
        if not keys:
            raise BadRequest("keys is missing.")
        return {"keys": keys, "store": not conf.GOIM_TRUSTED}


class PushMidsView(_PushView):
    """Push to users by their numeric ids."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return the keys that `?mids=1&mids=2` or `?mids=1,2` names."""
        named = ",".join(request.query_params.getlist("mids")).split(",")
        mids = [check_number(mid, "mids", lowest=1, highest=INT64_MAX) for mid in named]
        return {"keys": tuple(map(str, mids))}


class PushRoomView(_PushView):
    """Push to a room."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return the room that `?type=live&room=1000` names."""
        return {"room": room_of(_parameter(request, "type"), _parameter(request, "room"))}


class PushAllView(_PushView):
    """Push to all sessions."""

    def target(self, request: Request) -> Mapping[str, Any]:
        """Return all sessions as the target; `?speed=`: sessions a second of all nodes, 0: any."""
        speed = request.query_params.get("speed") or 0
        return {
            "to_all": True,
            "speed": check_number(speed, "speed", lowest=0, highest=INT32_MAX),
        }


class OnlineTopView(GoimView):
    """The fullest rooms of a type."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """Return names and sizes of the `limit` fullest rooms: `?type=live&limit=10`."""
        start = room_of(_parameter(request, "type"), "")
        limit = check_number(_parameter(request, "limit"), "limit", lowest=1, highest=TOP_MAX)
        rooms = get_registry().rooms()
        of_type = [(count, room) for room, count in rooms.items() if room.startswith(start)]
        top = sorted(of_type, key=lambda row: (-row[0], row[1]))[:limit]
        return done([{"room_id": room[len(start) :], "count": count} for count, room in top])


class OnlineRoomView(GoimView):
    """Numbers of sessions in the named rooms."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """Return the size of each room that `?type=live&rooms=1000&rooms=2000` names."""
        kind, rooms = _parameter(request, "type"), request.query_params.getlist("rooms")
        if not rooms:
            raise BadRequest("rooms is missing.")
        if len(rooms) > ROOMS_MAX:
            raise BadRequest(f"A question names at most {ROOMS_MAX} rooms.")
        if not all(rooms):
            raise BadRequest("One of rooms is empty.")
        sizes = get_registry().sizes([room_of(kind, room) for room in rooms])
        return done(dict(zip(rooms, sizes, strict=True)))


class OnlineTotalView(GoimView):
    """Total numbers of sessions and of client addresses."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:  # noqa: ARG002 - DRF's signature
        """Return both totals. An address with sessions on two nodes counts twice, as in goim."""
        nodes = get_registry().nodes()
        return done(
            {
                "ip_count": sum(node.addresses for node in nodes),
                "conn_count": sum(node.sessions for node in nodes),
            }
        )


class NodesWeightedView(GoimView):
    """Addresses that a client may connect to, its heartbeat interval and its back-off."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """Return the nodes with a `NODE_ADDRESS`, emptiest first; without any, the request's host.

        Draining nodes are left out.
        """
        host = _host(request)
        open_nodes = [node for node in get_registry().nodes() if not node.is_draining]
        nodes = sorted(open_nodes, key=lambda node: node.sessions)
        return done(
            {
                "domain": host,
                "tcp_port": conf.TCP_PORT,
                "ws_port": conf.WS_PORT or conf.HTTP_PORT,
                "wss_port": int(request.get_port()) if request.is_secure() else 0,
                "heartbeat": int(conf.HEARTBEAT_TIMEOUT / HEARTBEATS_PER_TIMEOUT),
                "heartbeat_max": HEARTBEATS_PER_TIMEOUT - 1,
                "nodes": [node.address for node in nodes if node.address] or [host],
                "backoff": BACKOFF,
            }
        )


class NodesInstancesView(GoimView):
    """All nodes, in the form in which goim's discovery service lists its comets."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:  # noqa: ARG002 - DRF's signature
        """Return all nodes, ordered by number."""
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
    """Return our name of goim's room of a type. Raises `BadRequest` if it is not a valid name."""
    if len(kind) > TYPE_MAX or len(room) > ROOM_MAX:
        raise BadRequest(f"A type has at most {TYPE_MAX} characters, a room {ROOM_MAX}.")
    return check_name(f"{kind}://{room}", "room")


def _parameter(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise BadRequest(f"{name} is missing.")
    return str(value)


def _host(request: HttpRequest | Request) -> str:
    """Return the host of the request, without the port."""
    host, _, port = request.get_host().rpartition(":")
    return host if host and port.isdigit() else request.get_host()
