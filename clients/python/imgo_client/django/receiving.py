"""Views that receive webhooks and answer hooks of the server. A signature protects them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import wraps
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.dateparse import parse_datetime
from django.utils.module_loading import import_string
from django.utils.timezone import make_naive
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from imgo_client import Refused
from imgo_client.django.conf import options
from imgo_client.django.models import Delivery
from imgo_client.django.pushing import outbox_databases
from imgo_client.django.signals import EVENTS
from imgo_client.django.signatures import BadSignature, verify

logger = logging.getLogger("imgo_client.webhooks")

PING = "ping"  # type of the event that the server's `manage.py webhooks ping` sends
IDENTITY = ("key", "rooms", "join", "info", "expires_in")  # members of an answer of `authenticate`

Data = dict[str, Any]
SignedView = Callable[[str, Data], HttpResponse]


def signed(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Give a view the id and the JSON object of a signed POST; refuse all other requests."""

    @wraps(view)
    def checked(request: HttpRequest, **arguments: str) -> HttpResponse:
        opts = options()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            webhook_id = verify(headers, request.body, opts.WEBHOOK_SECRETS, opts.WEBHOOK_AGE)
        except BadSignature as error:
            reason = str(error) if opts.WEBHOOK_SECRETS else "WEBHOOK_SECRETS is empty."
            logger.warning("A request to %s was refused: %s", request.path, reason)
            # The code keeps imgo from taking this for a refusal of its client.
            return JsonResponse({"code": "bad_signature", "error": str(error)}, status=401)
        try:
            data = json.loads(request.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            return JsonResponse({"error": "The body is not a JSON object."}, status=400)
        return view(webhook_id, data, **arguments)

    # The signature replaces both the CSRF token and the login of a LoginRequiredMiddleware.
    checked.login_required = False  # type: ignore[attr-defined]
    return require_POST(csrf_exempt(checked))


@signed
def webhook(webhook_id: str, data: Data) -> HttpResponse:
    """Send the signals of one event, or of a batch's. A repetition is answered and ignored."""
    events = data.get("events", [data])
    if not isinstance(events, list) or not all(map(_is_event, events)):
        error = "The body has neither an event's type and data nor a list of events."
        return JsonResponse({"error": error}, status=400)
    once(webhook_id, lambda: _dispatch(webhook_id, events))
    return HttpResponse(status=204)


@signed
def hook(webhook_id: str, data: Data, name: str) -> HttpResponse:
    """Answer a hook by the function that the options name."""
    path = {
        "authenticate": options().AUTHENTICATE,
        "authorize": options().AUTHORIZE,
        "receive": options().RECEIVE,
    }.get(name)
    if not path:
        raise Http404(f"There is no function for the hook {name!r}.")
    function = import_string(path)
    if name == "receive":
        return _receive(webhook_id, lambda: function(data))
    if name == "authorize":
        return JsonResponse({"allowed": bool(function(data))})
    return _identity(function(data))


def _identity(identity: Mapping[str, Any] | None) -> HttpResponse:
    """Answer `authenticate`. Raises ValueError if the project's function returned no key."""
    if identity is None:
        return JsonResponse({"error": "The login is refused."}, status=403)
    unknown = set(identity) - set(IDENTITY)
    if unknown or not isinstance(identity.get("key"), str):
        raise ValueError(f"AUTHENTICATE must return a key, and may return {IDENTITY[1:]}.")
    return JsonResponse(
        {name: identity[name] for name in IDENTITY if identity.get(name) is not None}
    )


def _receive(webhook_id: str, handle: Callable[[], Any]) -> HttpResponse:
    """Answer `receive`: what the project's function returned is the reply to the client."""
    try:
        reply = once(webhook_id, handle)
    except Refused as error:
        reason = {"code": error.code, "message": error.message}
        return JsonResponse({"error": reason}, status=400)
    if reply is None:
        return HttpResponse(status=204)
    return HttpResponse(reply, content_type="application/json")


def once(webhook_id: str, handle: Callable[[], Any]) -> bytes | None:
    """Return the JSON text of what `handle` returns; None for None.

    `handle` is not called for an id that was handled, whose answer is returned again. The row with
    the id and the answer commits together with what `handle` has written. A concurrent repetition
    waits in the database for the first one's end.

    Raises what `handle` raises; then nothing is written. Raises TypeError or ValueError if JSON
    cannot express what it returned.
    """
    alias = outbox_databases()[0]
    with transaction.atomic(using=alias):
        delivery = Delivery(webhook_id=webhook_id)
        try:
            with transaction.atomic(using=alias):
                delivery.save(using=alias, force_insert=True)
        except IntegrityError:
            logger.info("The webhook %s came again, and is ignored.", webhook_id)
            delivery.refresh_from_db(using=alias)
        else:
            delivery.keep_answer(handle())
    return None if delivery.answer is None else bytes(delivery.answer)


def _is_event(event: object) -> bool:
    return (
        isinstance(event, dict)
        and isinstance(event.get("type"), str)
        and isinstance(event.get("data"), dict)
    )


def _dispatch(webhook_id: str, events: list[Data]) -> None:
    for event in events:
        if event["type"] == PING:
            logger.info("Webhook %s: a test of this endpoint has arrived.", webhook_id)
            continue
        signal = EVENTS.get(event["type"])
        if signal is None:
            logger.warning("Webhook %s: the event %r is unknown.", webhook_id, event["type"])
            continue
        signal.send(
            sender=None,
            data=event["data"],
            timestamp=_moment(event.get("timestamp")),
            webhook_id=webhook_id,
        )


def _moment(text: object) -> datetime | None:
    """Return an event's time, None if it is missing or malformed.

    As in Django, it is aware if USE_TZ is set, and else a local time.
    """
    try:
        moment = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    # Databases refuse an aware time in a project without time zones.
    return moment if settings.USE_TZ else make_naive(moment)
