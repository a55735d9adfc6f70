"""Views of the dashboard's pages."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db import Error as DatabaseError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import resolve, reverse
from django.views.decorators.http import require_http_methods, require_safe

from accounts.callers import caller_names
from accounts.models import Token
from accounts.staff import is_dashboard_key
from imgo_site.ack_scope import is_each
from imgo_site.conf import conf
from imgo_site.deployment import redis_url
from imgo_site.direct_requests import has_websocket
from imgo_site.errors import BadRequest, NotFound, OutcomeUnknown, Unavailable
from imgo_site.names import DASHBOARD_ROOM, INT64_MAX, check_name, check_number
from imgo_site.replica import current_source, from_replica
from imgo_site.room_policies import has_history, policy_of
from offline import history, key_devices, stream_lists
from offline.models import Pending
from push.dashboard.access import data_for_operators, for_operators, require
from push.dashboard.actions import ACTIONS, Action, PushMessage
from push.devices import registration
from push.devices.addresses import shortened
from push.models import OnlineState, SessionRecord
from push.online.last_seen import last_seen
from push.pages import render
from push.presence.select import get_presence
from push.registry.base import Entry, fullest
from push.registry.select import get_registry
from push.routing import websocket_path
from push.status import explain, key_sessions, room_history, snapshot
from push.status.instance import instance_of

SESSIONS_SHOWN = 200
MEMBERS_SHOWN = 200
ROOMS_SHOWN = 200
KEYS_SHOWN = 100
PENDING_SHOWN = 20
PUSHES_SHOWN = 10
DEVICES_SHOWN = 20
MORE = 10  # times as many rows with `?more=1`


def _may(request: HttpRequest) -> dict[str, bool]:
    """Return the user's permissions, for templates and scripts."""
    user: Any = request.user
    return {
        "push": user.has_perm("push.push_message"),
        "kick": user.has_perm("push.kick_session"),
        "drain": user.has_perm("push.drain_node"),
        "revoke": user.has_perm("accounts.delete_token"),
        "messages": user.has_perm("offline.view_message"),
        "webhooks": user.has_perm("push.view_webhookbatch"),
    }


@require_safe
@for_operators
def overview(request: HttpRequest) -> HttpResponse:
    """Show the current state of the installation; the script keeps it up to date."""
    may = _may(request)
    config = {
        "ws": websocket_path() if conf.SESSION_AUTH and has_websocket(request) else None,
        "room": DASHBOARD_ROOM,
        "data": reverse("imgo:dashboard-data"),
        "every": snapshot.EVERY,
        "zone": settings.TIME_ZONE,
        "span": snapshot.SAMPLE_EVERY * snapshot.SAMPLES_KEPT,
        "may": may,
        "urls": {
            "room": reverse("imgo:dashboard-room"),
            "key": reverse("imgo:dashboard-key"),
            "drain": reverse("imgo:dashboard-act", args=["drain-node"]),
            "message": reverse("admin:offline_message_change", args=[0]).replace("/0/", "/ID/"),
        },
        "picture": {**snapshot.take(instance_of(request).rooms), "history": snapshot.history()},
    }
    return render(request, "dashboard/overview.html", {"config": config, "may": may})


@require_safe
@data_for_operators
def data(request: HttpRequest) -> HttpResponse:
    """Return the current snapshot, for pages without a WebSocket."""
    return JsonResponse(snapshot.take(instance_of(request).rooms))


def _named(request: HttpRequest, noun: str) -> str:
    name = request.GET.get("name", "")
    if not name:
        raise BadRequest(f"Say which {noun}: type its name into the search field.")
    return check_name(name, noun)


def _session(entry: Entry, nodes: dict[str, str]) -> dict[str, Any]:
    return {
        "id": entry.id,
        "node": nodes.get(entry.node, entry.node),
        "transport": entry.transport,
        "address": entry.address,
        "platform": entry.platform,
        "since": datetime.fromtimestamp(entry.since, tz=UTC),
    }


def _is_more(request: HttpRequest) -> bool:
    """Return whether the request is for the longer lists."""
    return request.GET.get("more") == "1"


def _sessions_of(key: str, limit: int) -> dict[str, Any]:
    """Return the sessions of a key with their count, or as `unknown` why they are not available."""
    registry = get_registry()
    try:
        nodes = {node.id: node.name for node in registry.nodes()}
        if not nodes and not redis_url():
            return {"unknown": "Only the server's own process knows who is connected."}
        entries = registry.sessions(key)
        shown = entries[:limit]
        waiting = registry.waiting(shown)
    except Unavailable as error:
        return {"unknown": error.message}
    rows = [
        {**_session(entry, nodes), "waiting": size}
        for entry, size in zip(shown, waiting, strict=True)
    ]
    return {"count": len(entries), "rows": rows}


def _pending_of(key: str, limit: int) -> list[dict[str, Any]]:
    """Return the oldest pending messages of a key, with their callers and sessions."""
    pending = (
        Pending.objects.unexpired(key)
        .order_by("message_id")
        .values("message_id", "device", "expires_at", "message__created_at", "message__by")
    )
    rows = list(pending[:limit])
    names = caller_names(row["message__by"] for row in rows)
    sent = history.sent_pending(key, [row["message_id"] for row in rows])
    return [
        {**row, "by": names[row["message__by"]], "sent": sent.get(row["message_id"])}
        for row in rows
    ]


def _pushes_to(key: str, limit: int) -> list[dict[str, Any]]:
    rows = []
    latest = history.latest_of(key, limit)
    names = caller_names(message.by for message, _ in latest)
    for message, delivery in latest:
        rows.append(
            {
                "id": message.pk,
                "by": names[message.by],
                "created_at": message.created_at,
                "state": delivery.words,
                "at": delivery.at,
                "session": delivery.session,
            }
        )
    return rows


def _devices_of(key: str) -> list[dict[str, Any]]:
    rows = registration.devices_of(key)[:DEVICES_SHOWN]
    return [{"device": row, "address": shortened(row.provider, row.address)} for row in rows]


@require_safe
@for_operators
@from_replica
def key(request: HttpRequest) -> HttpResponse:
    """Show one key: its sessions, its pending messages, and its last pushes.

    `?message=` adds an explanation of one message.
    """
    name = _named(request, "key")
    id_text, explanation = request.GET.get("message"), []
    if id_text is not None:
        number = check_number(id_text, "A push's id", lowest=1, highest=INT64_MAX)
        explanation = explain.of_message(name, number)
    is_more = _is_more(request)
    times = MORE if is_more else 1
    pushes = _pushes_to(name, PUSHES_SHOWN * times + 1)
    events = SessionRecord.objects.of(name)
    online = OnlineState.objects.filter(pk=name).first()
    context = {
        "name": name,
        "is_more": is_more,
        "sessions": _sessions_of(name, SESSIONS_SHOWN * times),
        "session_events": [
            *key_sessions.records_as_sentences(events),
            *key_sessions.last_event(online),
            *explain.failing_hooks(),
        ],
        "last_seen": last_seen(events, online, is_online=False),
        "token": Token.objects.filter(key=name).first(),
        "pending_count": Pending.objects.unexpired(name).count(),
        "pending": _pending_of(name, PENDING_SHOWN * times),
        "pushes": pushes[: PUSHES_SHOWN * times],
        "devices": _devices_of(name),
        "key_devices": key_devices.devices_of(name) if is_each(name) else [],
        "has_older": len(pushes) > PUSHES_SHOWN * times,
        "asked": id_text,
        "explanation": explanation,
        "source": current_source().sentence,
        "may": _may(request),
    }
    return render(request, "dashboard/key.html", context)


@require_safe
@for_operators
def room(request: HttpRequest) -> HttpResponse:
    """Show one room and its members."""
    name = _named(request, "room")
    is_more = _is_more(request)
    limit = MEMBERS_SHOWN * (MORE if is_more else 1)
    count, members = get_registry().peek(name, limit)
    policy = policy_of(name)
    context = {
        "name": name,
        "count": count,
        "is_more": is_more,
        "members": [{"key": key, "session": session} for key, session in members],
        "is_ours": name == DASHBOARD_ROOM,
        "present": get_presence().page(name, slice(0, limit)) if policy.presence else None,
        "policy": policy,
        "place": room_history.position(name) if policy.history else None,
        "may": _may(request),
    }
    return render(request, "dashboard/room.html", context)


@require_safe
@for_operators
def rooms(request: HttpRequest) -> HttpResponse:
    """Show the fullest rooms; with `?part=`, some of the rooms whose name contains it."""
    part = request.GET.get("part", "")
    if part:
        return _rooms_with(request, check_name(part, "part of a room"))
    is_more = _is_more(request)
    rooms, _ = snapshot.fullest_rooms(ROOMS_SHOWN * (MORE if is_more else 1))
    context = {
        "found": rooms,
        "rows": rooms.rows,
        "part": "",
        "is_more": is_more,
        "has_history": has_history(),
    }
    return render(request, "dashboard/rooms.html", context)


def _rooms_with(request: HttpRequest, part: str) -> HttpResponse:
    cursor = request.GET.get("cursor", "")
    rooms = get_registry().find_rooms(part, ROOMS_SHOWN, cursor)
    rows = [row for row in rooms.rows if row[0] != DASHBOARD_ROOM]
    context = {
        "found": rooms,
        "rows": fullest(dict(rows), len(rows)),
        "part": part,
        "is_first": not cursor,
        "has_history": has_history(),
    }
    return render(request, "dashboard/rooms.html", context)


@require_safe
@for_operators
@from_replica
def streams(request: HttpRequest) -> HttpResponse:
    """Show rooms that keep messages, also without sessions, by name; `?part=` is in the name."""
    part, after = request.GET.get("part", ""), request.GET.get("after", "")
    if part:
        check_name(part, "part of a room")
    if after:
        check_name(after, "room before the list")
    page = stream_lists.list_streams(part, after, ROOMS_SHOWN)
    names = [row.room for row in page.rows]
    counts: Sequence[int | None]
    try:
        counts = get_registry().sizes(names) if names else []
    except Unavailable:  # the list is the database's
        counts = [None] * len(names)
    rows = list(zip(page.rows, counts, strict=True))
    source = current_source().sentence
    context = {"found": page, "rows": rows, "part": part, "after": after, "source": source}
    return render(request, "dashboard/streams.html", context)


@require_safe
@for_operators
def keys(request: HttpRequest) -> HttpResponse:
    """Show some of the connected keys; with `?part=`, keys whose name contains it."""
    part = request.GET.get("part", "")
    if part:
        check_name(part, "part of a key")
    cursor = check_number(
        request.GET.get("cursor", "0"), "The place to go on", lowest=0, highest=INT64_MAX
    )
    registry = get_registry()
    page = registry.find_keys(part, KEYS_SHOWN, cursor)
    context = {
        "part": part,
        "found": page,
        "keys": sorted(row for row in page.rows if not is_dashboard_key(row[0])),
        "is_first": not cursor,
        "sessions": sum(node.sessions for node in registry.nodes()),
    }
    return render(request, "dashboard/keys.html", context)


@require_safe
@for_operators
def nothing(request: HttpRequest, rest: str) -> HttpResponse:
    """Redirect from a page's path with a final slash; raise `NotFound` for any other path."""
    if rest.endswith("/") and resolve(request.path_info[:-1]).url_name:
        query = request.META["QUERY_STRING"]
        return redirect(request.path[:-1] + (f"?{query}" if query else ""))
    raise NotFound(f"There is nothing at {request.path}.")


@require_http_methods(["GET", "HEAD", "POST"])
@for_operators
def act(request: HttpRequest, name: str) -> HttpResponse:
    """Ask for confirmation of an action; perform it if a POST confirms it."""
    kind = ACTIONS.get(name)
    if kind is None:
        raise NotFound("There is no such action.")
    require(request, kind.permission)
    if request.method != "POST" and kind.has_form:
        initial = {field: text for field, text in request.GET.items() if field in kind.base_fields}
        return _show_form(request, kind(initial=initial))
    form = kind(request.POST if request.method == "POST" else request.GET)
    if not form.is_valid():
        if kind.has_form:
            return _show_form(request, form, status=400)
        problems = [f"{name}: {error}" for name, errors in form.errors.items() for error in errors]
        raise BadRequest(" ".join(problems))
    if request.method == "POST" and "confirmed" in request.POST:
        done = _perform(form, request.user)
        messages.success(request, done)
        return redirect(form.back())
    context = {"form": form, "action": name, "fields": form.cleaned_data.items()}
    return render(request, "dashboard/confirm.html", {**context, "question": form.question()})


def _perform(form: Action, user: Any) -> str:
    """Perform an action in one transaction with its log entry; return the action's report.

    Raises `OutcomeUnknown` if the commit of a push is not confirmed.
    """
    is_pushed = False
    try:
        with transaction.atomic():
            done = form.perform(user)
            is_pushed = isinstance(form, PushMessage)
    except DatabaseError as error:
        if not is_pushed:
            raise
        unknown = OutcomeUnknown(has_dedupe_id=True)
        unknown.message = (
            "The database did not confirm whether the message is stored. Send the same form "
            "again: a message that is stored is not pushed twice."
        )
        raise unknown from error
    return done


def _show_form(request: HttpRequest, form: Action, status: int = 200) -> HttpResponse:
    return render(request, "dashboard/form.html", {"form": form}, status=status)
