"""Live tail of pushes and session events, a bounded number at a time."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from push.dashboard.access import data_for_operators, for_operators
from push.pages import render
from push.session.session_log import reason_of
from push.session.session_records import EVENTS, SessionEvent, SessionRecord
from push.status import snapshot

EVERY = 2.0  # seconds between two queries of a page
KEPT = 300  # rows that a page keeps
PUSHES = 100  # of one answer
SESSION_EVENTS = 100  # of one answer


@require_safe
@for_operators
def tail(request: HttpRequest) -> HttpResponse:
    """Show the latest pushes and session events; the script adds those that follow."""
    config = {
        "data": reverse("imgo:dashboard-tail-data"),
        "every": EVERY,
        "kept": KEPT,
        "zone": settings.TIME_ZONE,
        "urls": {
            "room": reverse("imgo:dashboard-room"),
            "key": reverse("imgo:dashboard-key"),
        },
    }
    return render(request, "dashboard/tail.html", {"config": config})


@require_safe
@data_for_operators
def tail_data(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    """Return the latest pushes and session events, newest first."""
    return JsonResponse(
        {
            "pushes": snapshot.latest_pushes(PUSHES),
            "is_full": PUSHES,
            "sessions": session_events(SESSION_EVENTS),
        }
    )


def session_events(limit: int) -> list[dict[str, Any]]:
    """Return the latest openings, refusals and closings, newest first, at most `limit`.

    Only the last event of each kind is recorded for a key. Raises `DatabaseError`.
    """
    rows = SessionRecord.objects.order_by("-updated_at").values("key", *EVENTS)[:limit]
    events = [
        _session_event(row["key"], kind, SessionEvent(**row[kind]))
        for row in rows
        for kind in EVENTS
        if row[kind]
    ]
    return sorted(events, key=lambda event: -event["at"])[:limit]


def _session_event(key: str, kind: str, event: SessionEvent) -> dict[str, Any]:
    why = event.reason or reason_of(event.code) if kind != "opened" else ""
    return {
        "id": f"{key} {kind} {event.session} {event.at}",
        "kind": kind,
        "key": key,
        "at": event.at,
        "node": event.node,
        "transport": event.transport,
        "address": event.address,
        "session": event.session,
        "why": f"{event.code} {why}" if event.code else why,
    }
