"""Views of our own API, version 1."""

from datetime import UTC, datetime
from typing import ClassVar

from msgspec import Raw
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import caller
from accounts.models import Token
from imgo_site.ack_scope import is_each
from imgo_site.conf import conf
from imgo_site.errors import ImgoError, NotFound, TooLarge
from imgo_site.names import INT64_MAX, check_name, check_number
from offline import history, key_devices
from offline.key_devices import DeviceState
from offline.models import Pending
from push.accept.accept import Push, accept_pushes
from push.accept.cancel import Cancellation, cancel_push
from push.accept.group_commit import accept_in_group
from push.api import paging
from push.api.answers import (
    Accepted,
    Cancelled,
    Closed,
    KeyDeviceRow,
    KeyState,
    NewToken,
    NodePage,
    NodeRow,
    Refused,
    SessionEventRow,
    SessionRow,
    Stats,
    TokenPage,
    TokenRow,
)
from push.api.base import V1View
from push.api.paging import window_of
from push.api.problems import problem
from push.api.schemas import PushRequest, TokenRequest, read, utf8
from push.models import Dedupe, OnlineState, SessionRecord
from push.online.last_seen import last_seen
from push.operations import kick_key, revoke_token
from push.registry.base import Entry, NodeEntry
from push.registry.select import get_registry
from push.session.session_records import SessionEvent
from push.status import hook_states


def body_of(request: Request) -> bytes:
    """Return the request's body, whatever its content type is.

    Raises `TooLarge` above MAX_REQUEST bytes.
    """
    length = request.META.get("CONTENT_LENGTH") or "0"
    too_large = length.isdigit() and int(length) > conf.MAX_REQUEST
    body: bytes = b"" if too_large else request._request.body
    if too_large or len(body) > conf.MAX_REQUEST:
        raise TooLarge(f"A request has at most {conf.MAX_REQUEST} bytes.")
    return body


class PushesView(V1View):
    """Pushes: one object a request, or an array of objects."""

    scopes: ClassVar = {"POST": "push", "DELETE": "push"}
    query_names: ClassVar = {"DELETE": ("dedupe_id",)}
    body_setting = "MAX_REQUEST"

    def delete(self, request: Request) -> Response:
        """Cancel the caller's push that had a dedupe id."""
        dedupe_id = check_name(request.query_params.get("dedupe_id", ""), "dedupe_id")
        by = caller(request).name
        known_ids = Dedupe.objects.known(by, [dedupe_id])
        if not known_ids:
            raise NotFound(
                f"The API key has pushed nothing with the dedupe id {dedupe_id!r} within "
                f"{conf.DEDUPE_WINDOW} s (DEDUPE_WINDOW)."
            )
        return Response(_as_answer(cancel_push(known_ids[dedupe_id], by)))

    def post(self, request: Request) -> Response:
        """Return 202 with the push's id; for an array, with one answer for each item."""
        body = body_of(request)
        by = caller(request).name
        if body.lstrip()[:1] == b"[":
            return Response(self._accept_array(body, by), status=202)
        push = read(body, PushRequest).as_push()
        accepted: Accepted = {"id": str(accept_in_group(push, by))}
        return Response(accepted, status=202)

    @staticmethod
    def _accept_array(body: bytes, by: str) -> list[Accepted | Refused]:
        """Accept the valid items in one transaction; return an id or an error for each item."""
        items = read(utf8(body), list[Raw])
        if len(items) > conf.MAX_PUSHES:
            raise TooLarge(f"An array has at most {conf.MAX_PUSHES} pushes; this one {len(items)}.")
        checked: list[Push | ImgoError] = []
        for item in items:
            try:
                checked.append(read(item, PushRequest).as_push())
            except ImgoError as error:
                checked.append(error)
        ids = iter(accept_pushes([push for push in checked if isinstance(push, Push)], by))
        return [
            {"id": str(next(ids))} if isinstance(result, Push) else {"error": problem(result)}
            for result in checked
        ]


def _as_answer(done: Cancellation) -> Cancelled:
    return {
        "id": str(done.message_id),
        "state": done.state,
        "cancelled": done.cancelled,
        "too_late": done.too_late,
    }


class PushView(V1View):
    """Record of one push."""

    scopes: ClassVar = {"GET": "read", "DELETE": ("push", "admin")}
    query_names: ClassVar = {"GET": paging.NAMES}

    def delete(self, request: Request, message_id: str) -> Response:
        """Cancel what is still scheduled or pending of it."""
        number = check_number(message_id, "A push's id", lowest=1, highest=INT64_MAX)
        user = caller(request)
        return Response(
            _as_answer(cancel_push(number, None if "admin" in user.scopes else user.name))
        )

    def get(self, request: Request, message_id: str) -> Response:
        """Return the push's record, with one page of its keys."""
        number = check_number(message_id, "A push's id", lowest=1, highest=INT64_MAX)
        if scheduled := history.find_scheduled(number):
            return Response(history.scheduled_as_dict(scheduled, window_of(request)))
        message = history.find(number)
        if message is None:
            raise NotFound(
                f"There is no record of push {number}: it was never accepted, or longer ago than "
                f"records are kept ({conf.RECORD_KEEP} s)."
            )
        return Response(history.as_dict(message, window_of(request)))


def moment(seconds: float) -> datetime:
    """Return a Unix time as a datetime in UTC, the form of all times in the API."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def session_json(entry: Entry) -> SessionRow:
    """Return a session as the API shows it."""
    return {
        "id": entry.id,
        "node": entry.node,
        "transport": entry.transport,
        "address": entry.address,
        "platform": entry.platform,
        "since": moment(entry.since),
    }


def device_json(device: DeviceState) -> KeyDeviceRow:
    """Return a device of a key with the scope `each` as the API shows it."""
    return {
        "device": device.name,
        "pending": device.pending,
        "created_at": device.created_at,
        "seen_at": device.seen_at,
    }


def _event(event: SessionEvent | None) -> SessionEventRow | None:
    """Return a session record's event as the API shows it."""
    if event is None:
        return None
    row: SessionEventRow = {
        "at": event.time,
        "node": event.node,
        "transport": event.transport,
        "address": event.address,
    }
    if event.platform:
        row["platform"] = event.platform
    if event.session:
        row["session"] = event.session
    if event.code:
        row["code"] = event.code
    if event.reason:
        row["reason"] = event.reason
    if event.seconds:
        row["seconds"] = event.seconds
    return row


class KeyView(V1View):
    """State of one key."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request, key: str) -> Response:  # noqa: ARG002
        """Return the key's sessions, its number of pending messages and its last events."""
        check_name(key, "key")
        sessions = get_registry().sessions(key)
        events = SessionRecord.objects.of(key)
        online = OnlineState.objects.filter(pk=key).first()
        state: KeyState = {
            "key": key,
            "online": bool(sessions),
            "last_seen": last_seen(events, online, is_online=bool(sessions)),
            "sessions": [session_json(entry) for entry in sessions],
            "pending": Pending.objects.unexpired(key).count(),
            "unacknowledged": history.unacknowledged_count(key),
            "opened": _event(events.get("opened")),
            "refused": _event(events.get("refused")),
            "closed": _event(events.get("closed")),
        }
        if is_each(key):
            state["devices"] = [device_json(device) for device in key_devices.devices_of(key)]
        return Response(state)


class KeySessionsView(V1View):
    """Sessions of one key."""

    scopes: ClassVar = {"DELETE": "admin"}

    def delete(self, request: Request, key: str) -> Response:  # noqa: ARG002
        """Close all sessions of the key, with a close code after which clients do not reconnect."""
        closed: Closed = {"closed": kick_key(key)}
        return Response(closed, status=202)


def node_json(node: NodeEntry) -> NodeRow:
    """Return a node as the API shows it."""
    return {
        "id": node.id,
        "number": node.number,
        "name": node.name,
        "since": moment(node.since),
        "sessions": node.sessions,
        "draining": node.is_draining,
    }


class NodesView(V1View):
    """List of the live nodes, those that are draining included."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> Response:  # noqa: ARG002
        """Return all live nodes, each with its number, name and number of sessions."""
        rows = [node_json(node) for node in get_registry().nodes()]
        page: NodePage = {"count": len(rows), "results": rows}
        return Response(page)


class StatsView(V1View):
    """Totals of the installation."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> Response:  # noqa: ARG002
        """Return the current numbers of nodes, sessions and rooms."""
        registry = get_registry()
        nodes = registry.nodes()
        sessions = sum(node.sessions for node in nodes)
        rooms = len(registry.rooms())
        hooks = hook_states.of_nodes()
        stats: Stats = {"nodes": len(nodes), "sessions": sessions, "rooms": rooms, "hooks": hooks}
        return Response(stats)


def token_json(token: Token) -> TokenRow:
    """Return a token as the API shows it, without its text."""
    return {
        "key": token.key,
        "rooms": token.rooms,
        "join": token.join,
        "info": token.info,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }


class TokensView(V1View):
    """List of stored tokens, and the place to issue one."""

    scopes: ClassVar = {"GET": "tokens", "POST": "tokens"}
    query_names: ClassVar = {"GET": ("key", *paging.NAMES)}

    def get(self, request: Request) -> Response:
        """Return one page of tokens, ordered by key; `?key=` selects the token of one key."""
        tokens = Token.objects.order_by("key")
        if key := request.query_params.get("key"):
            tokens = tokens.filter(key=check_name(key, "key"))
        rows = [token_json(token) for token in tokens[window_of(request)]]
        page: TokenPage = {"count": tokens.count(), "results": rows}
        return Response(page)

    def post(self, request: Request) -> Response:
        """Create a key's token, replacing any older one. Only this answer contains its text."""
        fields = read(utf8(body_of(request)), TokenRequest)
        token, text = Token.objects.issue(
            fields.key,
            token=fields.token,
            expires_in=fields.seconds,
            rooms=fields.rooms,
            join=fields.join,
            info=fields.info,
        )
        answer: NewToken = {**token_json(token), "token": text}
        return Response(answer, status=201)


class TokenView(V1View):
    """Token of one key."""

    scopes: ClassVar = {"GET": "tokens", "DELETE": "tokens"}

    def get(self, request: Request, key: str) -> Response:  # noqa: ARG002
        """Return the token without its text; 404 if the key has none."""
        token = Token.objects.filter(key=check_name(key, "key")).first()
        if token is None:
            raise NotFound(f"The key {key!r} has no token.")
        return Response(token_json(token))

    def delete(self, request: Request, key: str) -> Response:  # noqa: ARG002
        """Revoke the token and close the key's sessions. It cannot open a session any more."""
        revoke_token(key)
        return Response(status=204)
