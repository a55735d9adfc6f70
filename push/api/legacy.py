"""Views for imgo's own paths: imgo's parameters and answers."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from django.http import HttpResponse, JsonResponse, QueryDict
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request

from accounts.authentication import LegacyAuthentication, caller
from accounts.models import Token, digest
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError, NotAuthenticated, NotFound
from imgo_site.names import INT32_MAX, INT64_MAX, check_number
from offline import key_messages
from offline.values import PendingMessage
from push.accept.accept import Push
from push.accept.frame_bodies import is_json
from push.accept.group_commit import accept_in_group
from push.api.base import ApiView
from push.api.negotiation import JsonAlways
from push.api.problems import (
    RET_OK,
    RET_OK_MESSAGES,
    as_imgo_error,
    legacy_response,
    ret_of,
)
from push.api.schemas import ManyRequest, read, utf8
from push.api.v1 import body_of
from push.registry.select import get_registry
from push.status.instance import instance_of
from push.wire import json_body

# imgo accepted any text as the name of the callback. A plain identifier cannot run other code.
CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,63}")
# Line ends in JavaScript before 2019. JSON allows them, but only inside a string.
SCRIPT_ESCAPES = {"\u2028": "\\u2028", "\u2029": "\\u2029"}
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # Go's strconv.ParseBool


def user_id(value: object, lowest: int = 0) -> str:
    """Return the key for imgo's user id, a 63-bit number. Raises `BadRequest`."""
    return str(check_number(value, "uid", lowest=lowest, highest=INT64_MAX))


def room_id(value: object) -> str:
    """Return the room name for imgo's room number, 32 bits. Raises `BadRequest`."""
    return str(check_number(value, "rid", lowest=0, highest=INT32_MAX))


class LegacyView(ApiView):
    """Base view for imgo's paths: errors are answered with imgo's return codes."""

    authentication_classes = [LegacyAuthentication]
    content_negotiation_class = JsonAlways

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]
        """Return the answer to an error; raise `exc` again if it is a bug, for a logged 500."""
        if isinstance(exc, MethodNotAllowed):
            return self.wrong_method(exc)
        imgo_error = as_imgo_error(exc)
        if imgo_error is None:
            raise exc
        return self.refusal(imgo_error)

    def wrong_method(self, error: MethodNotAllowed) -> HttpResponse:
        """Return imgo's answer to a wrong method: a line of text."""
        return HttpResponse(
            "Method Not Allowed\n",
            status=error.status_code,
            content_type="text/plain; charset=utf-8",
            headers={"Allow": ", ".join(self.allowed_methods)},
        )

    def refusal(self, error: ImgoError) -> JsonResponse:
        """Return imgo's answer to an error."""
        return legacy_response(error)


def done(data: Mapping[str, Any] | None = None) -> JsonResponse:
    """Return imgo's answer for success, with the members of `data`."""
    return JsonResponse({"ret": RET_OK, **(data or {})})


def raw_push(request: Request, **target: Any) -> None:
    """Push the request's body unchanged. `target`: fields of `Push`."""
    body = body_of(request)
    accept_in_group(Push(body, is_json=is_json(body), **target), caller(request).name)


class PushView(LegacyView):
    """Push to one user."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_BODY"

    def post(self, request: Request) -> JsonResponse:
        """Push the raw body to `?uid=`."""
        raw_push(request, keys=(user_id(request.query_params.get("uid")),))
        return done()


class PushManyView(LegacyView):
    """Push of one message to many users."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_REQUEST"

    def post(self, request: Request) -> JsonResponse:
        """Push the message of `{"u": [1, 2, 3], "m": {...}}` to its users."""
        push = read(utf8(body_of(request)), ManyRequest)
        if not push.u:
            return done()  # imgo accepts an empty list too
        keys = tuple(user_id(uid) for uid in push.u)
        accept_in_group(Push(bytes(push.m), keys=keys), caller(request).name)
        return done()


class PushRoomView(LegacyView):
    """Push to a room."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_BODY"

    def post(self, request: Request) -> JsonResponse:
        """Push the raw body to the room `?rid=`, a 32-bit number; `&ensure=` is a flag."""
        query = request.query_params
        room = room_id(query.get("rid"))
        raw_push(request, room=room, ensure=query.get("ensure") in TRUE)
        return done()


class PushAllView(LegacyView):
    """Push to all sessions."""

    scopes: ClassVar = {"POST": "push"}
    body_setting = "MAX_BODY"

    def post(self, request: Request) -> JsonResponse:
        """Push the raw body."""
        raw_push(request, to_all=True)
        return done()


class CountView(LegacyView):
    """Numbers of sessions by room or by server."""

    scopes: ClassVar = {"GET": "read"}

    def get(self, request: Request) -> JsonResponse:
        """Return the counts for `?type=room` or `?type=server`.

        A room whose name is not a number is listed by its name.
        """
        kind = request.query_params.get("type")
        if kind == "room":
            rooms = sorted(get_registry().rooms().items())
            return done({"data": [{"RoomId": _number(r), "Count": n} for r, n in rooms]})
        if kind == "server":
            nodes = get_registry().nodes()
            return done({"data": [{"Server": n.number, "Count": n.sessions} for n in nodes]})
        raise BadRequest("type must be room or server.")


def _number(room: str) -> int | str:
    return int(room) if re.fullmatch("0|[1-9][0-9]{0,9}", room) else room


class DeleteServerView(LegacyView):
    """Removal of a server from the registry."""

    scopes: ClassVar = {"POST": "admin"}

    def post(self, request: Request) -> JsonResponse:
        """Remove the server with the number `?server=`.

        A live server registers again with its next heartbeat.
        """
        query = request.query_params
        number = check_number(query.get("server"), "server", lowest=0, highest=INT32_MAX)
        registry = get_registry()
        for node in registry.nodes():
            if node.number == number:
                registry.forget_node(node.id)
                return done()
        raise NotFound("There is no server with this number.")


class NewTokenView(LegacyView):
    """Creation of a user's token."""

    scopes: ClassVar = {"POST": "tokens"}

    def post(self, request: Request) -> JsonResponse:
        """Store a token from `uid`, `token` and `expire` (seconds): a form, query or JSON object.

        `rid`: the room that sessions with this token join when they open; optional.
        """
        values = _form_or_json(request)
        key = user_id(values.get("uid"), lowest=1)  # imgo gives no token to user 0 either
        token = values.get("token")
        if not isinstance(token, str) or not token:
            raise BadRequest("token is missing.")
        expire = check_number(values.get("expire"), "expire", lowest=1, highest=INT32_MAX)
        join = [room_id(values["rid"])] if "rid" in values else []
        Token.objects.issue(key, token=token, expires_in=expire, join=join)
        return done()


def _form_or_json(request: Request) -> Mapping[str, Any]:
    """Return the parameters, from a JSON object or from the query and a form.

    imgo reads a form. Its documentation shows JSON, which curl sends with a form's content type.
    """
    body = utf8(body_of(request))
    if body.lstrip()[:1] == b"{":
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequest("The request is not valid JSON.") from None
        return dict(value)
    return {**request.query_params.dict(), **QueryDict(body.decode()).dict()}


class MessagesView(LegacyView):
    """Pending messages of a user, for a client with its token. Reading removes nothing."""

    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        """Return messages with an id above `mid`: `?uid=&token=&mid=`, and `&cb=` for JSONP."""
        callback = request.query_params.get("cb", "")
        if callback and not CALLBACK.fullmatch(callback):
            raise BadRequest("cb must be a plain identifier.")
        status = 200
        try:
            messages = ", ".join(map(_message, self._messages(request)))
            answer = f'{{"ret": {RET_OK_MESSAGES}, "data": {{"msgs": [{messages}]}}}}'
        except Exception as error:
            imgo_error = as_imgo_error(error)
            if imgo_error is None:
                raise
            answer, status = f'{{"ret": {ret_of(imgo_error)}}}', imgo_error.status
        if not callback:
            return HttpResponse(answer, status=status, content_type="application/json")
        # A browser runs a script only if its status is 200. The callback must receive errors too.
        for line_end, escaped in SCRIPT_ESCAPES.items():
            answer = answer.replace(line_end, escaped)
        script = f"{callback}({answer})"
        return HttpResponse(script, content_type="application/javascript; charset=utf-8")

    @staticmethod
    def _messages(request: Request) -> list[PendingMessage]:
        query = request.query_params
        key = user_id(query.get("uid"))
        after = check_number(query.get("mid"), "mid", lowest=0, highest=INT64_MAX)
        if not query.get("token"):
            raise BadRequest("token is missing.")
        address = request.META.get("REMOTE_ADDR", "")
        guard = instance_of(request).guard
        guard.admit_at_once(address)
        token = Token.objects.by_digest([name := digest(query["token"])]).get(name)
        if token is None or token.key != key or token.is_expired:
            guard.failed(address)
            raise NotAuthenticated("The token is not valid or has expired.")
        pages = key_messages.read_pending([(key, after)], conf.OFFLINE_MAX)
        return pages[key, after]


def _message(message: PendingMessage) -> str:
    """Return one message of the answer: the body as pushed, or as a string if it is not JSON."""
    readable = message.is_json and is_json(message.body)
    body = json_body(message.body, readable).decode()
    return f'{{"msg": {body}, "mid": {message.id}, "gid": 0}}'
