"""Actions of an operator in the dashboard, each confirmed first and logged.

An action is a form with its object, a permission, a question, and `perform`. Its entry in Django's
log is written first, in one transaction with the action's own changes of the database.
"""

from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import uuid4

from django import forms
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.forms.renderers import DjangoTemplates
from django.urls import reverse
from django.utils import timezone

from accounts.models import Token, digest
from imgo_site.conf import conf
from imgo_site.errors import BadRequest, ImgoError, NotFound
from imgo_site.names import check_name
from imgo_site.times import utc_text
from offline.models import COLLAPSE_KEY_MAX, Message
from push import operations
from push.accept.accept import CALLER_MAX, Push, accept_push, encode_body
from push.accept.frame_bodies import is_json
from push.devices.content import notify_of
from push.models import Dedupe, Node
from push.registry.select import get_registry

REPR_MAX = 200  # characters of `LogEntry.object_repr`


def key_url(key: str) -> str:
    """Return the URL of a key's page."""
    return f"{reverse('imgo:dashboard-key')}?{urlencode({'name': key})}"


def room_url(room: str) -> str:
    """Return the URL of a room's page."""
    return f"{reverse('imgo:dashboard-room')}?{urlencode({'name': room})}"


def sessions(count: int) -> str:
    """Return a number of sessions as text: `1 session`, `2 sessions`."""
    return f"{count:,} session{'' if count == 1 else 's'}"


def _audit(
    user: Any, flag: int, model: type[Model], *, pk: object = None, what: str, change: str
) -> None:
    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(model),
        object_id=None if pk is None else str(pk),
        object_repr=what[:REPR_MAX],
        action_flag=flag,
        change_message=change,
    )


class Action(forms.Form):
    """Base of the actions: a form that checks the object of the action."""

    permission: ClassVar[str]
    title: ClassVar[str]
    button: ClassVar[str]
    default_renderer = DjangoTemplates  # independent of the project's FORM_RENDERER
    has_form = False  # whether the operator fills in the form before the question
    is_severe = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})

    def question(self) -> list[str]:
        """Return sentences that ask for confirmation and describe the effect."""
        raise NotImplementedError

    def perform(self, user: Any) -> str:
        """Perform the action inside a transaction; return a report. Raises `ImgoError`."""
        raise NotImplementedError

    def back(self) -> str:
        """Return the URL of the page to show afterwards."""
        return reverse("imgo:dashboard")


class _NameField(forms.CharField):
    """Name of a key or a room. Blanks are part of the name."""

    def __init__(self, what: str, **options: Any) -> None:
        super().__init__(strip=False, widget=forms.HiddenInput, **options)
        self.what = what

    def clean(self, value: Any) -> Any:
        name = super().clean(value)
        try:
            return check_name(name, self.what)
        except ImgoError as error:
            raise ValidationError(error.message) from None


class _OfKey(Action):
    """Base of the actions on one key, which lead back to the key's page."""

    name = _NameField("key")

    def back(self) -> str:
        """Return the URL of the key's page."""
        return key_url(self.cleaned_data["name"])


class KickKey(_OfKey):
    """Close all sessions of a key."""

    permission = "push.kick_session"
    title = "Close the sessions of a key"
    button = "Close the sessions"

    def question(self) -> list[str]:
        """Ask, with the number of sessions. Raises `NotFound` if there are none."""
        key = self.cleaned_data["name"]
        count = self._count_text(len(get_registry().sessions(key)))
        return [
            f"Close {count} of the key {key!r}?",
            "Its clients are told not to come back by themselves. What is pending stays pending.",
        ]

    def perform(self, user: Any) -> str:
        """Order the nodes to close the sessions."""
        key = self.cleaned_data["name"]
        what, change = f"sessions of {key}", "Closed all sessions of the key."
        _audit(user, CHANGE, Node, what=what, change=change)
        return f"Now being closed: {self._count_text(operations.kick_key(key))} of {key!r}."

    def _count_text(self, count: int) -> str:
        """Return the number of sessions as text. Raises `NotFound` for 0."""
        if not count:
            raise NotFound(f"The key {self.cleaned_data['name']!r} is not connected.")
        return sessions(count)


class KickSession(_OfKey):
    """Close one session."""

    permission = "push.kick_session"
    title = "Close a session"
    button = "Close the session"

    session = forms.CharField(widget=forms.HiddenInput, max_length=40)

    def question(self) -> list[str]:
        """Ask, with the session's id. Raises `NotFound` if it has closed in the meantime."""
        data = self.cleaned_data
        self._check_session()
        return [
            f"Close the session {data['session']} of the key {data['name']!r}?",
            "Its client is told not to come back by itself; other sessions of the key stay.",
        ]

    def perform(self, user: Any) -> str:
        """Order the session's node to close it."""
        self._check_session()
        session, key = self.cleaned_data["session"], self.cleaned_data["name"]
        what = f"session {session} of {key}"
        _audit(user, CHANGE, Node, what=what, change="Closed the session.")
        operations.kick_session(session)
        return f"The session {session} is being closed."

    def _check_session(self) -> None:
        """Raise `NotFound` if the key has no such session."""
        data = self.cleaned_data
        if all(entry.id != data["session"] for entry in get_registry().sessions(data["name"])):
            raise NotFound(f"The key {data['name']!r} has no session {data['session']!r} any more.")


class DrainNode(Action):
    """Drain a node before it is stopped."""

    permission = "push.drain_node"
    title = "Drain a node"
    button = "Drain the node"

    node = forms.CharField(widget=forms.HiddenInput, max_length=255)

    def _node(self) -> Any:
        node_id = self.cleaned_data["node"]
        for node in get_registry().nodes():
            if node_id == node.id and node.is_draining:
                raise BadRequest(f"{node.name} is draining already.")
            if node_id == node.id:
                return node
        raise NotFound(f"There is no live node {node_id!r}.")

    def question(self) -> list[str]:
        """Ask, with the node's number of sessions."""
        node = self._node()
        return [
            f"Have the node {node.name} close {sessions(node.sessions)} and take no more?",
            f"They are closed over {conf.DRAIN_SECONDS:g} seconds and come back on other nodes. "
            "The node takes sessions again after 'manage.py drain --undo' or a restart.",
        ]

    def perform(self, user: Any) -> str:
        """Order the node to drain."""
        node = self._node()
        _audit(user, CHANGE, Node, pk=node.number, what=node.name, change="Drained the node.")
        return f"{node.name} is closing {sessions(operations.drain_node(node.id))}."


class RevokeToken(_OfKey):
    """Revoke a key's token."""

    permission = "accounts.delete_token"
    title = "Revoke a token"
    button = "Revoke the token"

    def question(self) -> list[str]:
        """Ask, with the consequences. Raises `NotFound` if the key has no token."""
        key = self.cleaned_data["name"]
        if not Token.objects.filter(key=key).exists():
            raise NotFound(f"The key {key!r} has no token.")
        return [
            f"Revoke the token of the key {key!r}?",
            "No session can be opened with it any more, and the key's open sessions are closed. "
            "It cannot be undone: the key will need a new token.",
        ]

    def perform(self, user: Any) -> str:
        """Delete the token and close the key's sessions."""
        key = self.cleaned_data["name"]
        pk = Token.objects.filter(key=key).values_list("pk", flat=True).first()
        what, change = f"token of {key}", "Revoked in the dashboard."
        _audit(user, DELETION, Token, pk=pk, what=what, change=change)
        operations.revoke_token(key)
        return f"The token of {key!r} is revoked."


TARGETS = [("key", "a key"), ("room", "a room"), ("all", "everyone")]


class PushMessage(Action):
    """Push a message."""

    permission = "push.push_message"
    title = "Push a message"
    button = "Push"
    has_form = True
    is_severe = False

    target = forms.ChoiceField(label="To", choices=TARGETS, widget=forms.RadioSelect, initial="key")
    name = forms.CharField(
        label="Key or room", required=False, strip=False, max_length=255,
        help_text="Left empty for everyone.",
    )  # fmt: skip
    body = forms.CharField(
        label="Message", strip=False, widget=forms.Textarea(attrs={"rows": 5}),
        help_text="JSON is sent as it is, any other text as a string.",
    )  # fmt: skip
    ttl = forms.IntegerField(
        label="Lifetime in seconds", required=False, min_value=1, help_text="Empty: the default."
    )
    send_at = forms.DateTimeField(
        label="Send at", required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M:%S"),
    )  # fmt: skip
    collapse_key = forms.CharField(
        label="Collapse key", required=False, strip=False, max_length=COLLAPSE_KEY_MAX,
        help_text="It replaces pushes with the same one that wait. Empty: none.",
    )  # fmt: skip
    store = forms.BooleanField(
        label="Keep it for a key that is not connected", required=False, initial=True
    )
    notify_title = forms.CharField(
        label="Notification", required=False, max_length=200,
        help_text="Title of what the key's devices show if no session takes the push in time. "
        "Empty: none.",
    )  # fmt: skip
    notify_body = forms.CharField(label="Text of the notification", required=False, max_length=500)
    notify_url = forms.CharField(
        label="URL of the notification", required=False, max_length=500,
        help_text="A click opens it: a path such as /orders/7, or a URL.",
    )  # fmt: skip
    notify_after = forms.FloatField(
        label="Notify after seconds", required=False, min_value=0, help_text="Empty: the default."
    )
    # A form that is sent twice pushes only once, unless it was changed in between.
    dedupe = forms.CharField(widget=forms.HiddenInput, initial=uuid4, max_length=100)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zone = timezone.get_current_timezone_name()
        self.fields["send_at"].help_text = f"A time of the zone {zone}. Empty: now."

    def clean(self) -> dict[str, Any]:
        """Check the fields and set `self.push`. Raises `ValidationError`."""
        data: dict[str, Any] = super().clean() or {}
        if self.errors:
            return data
        target, name = data["target"], data["name"]
        if target == "all" and name:
            raise ValidationError({"name": "A message to everyone has no key or room."})
        if target != "all" and not name:
            raise ValidationError({"name": f"Name the {target}."})
        try:
            self.push = self._push(data)
        except ImgoError as error:
            raise ValidationError(error.message) from None
        return data

    @staticmethod
    def _push(data: dict[str, Any]) -> Push:
        at: datetime | None = data["send_at"]
        text = data["body"].replace("\r\n", "\n")  # forms send line ends as CRLF
        body = text.encode()
        if not is_json(body):
            body, _ = encode_body(text)
        notify = {name: data[f"notify_{name}"] for name in ("title", "body", "url")}
        return Push(
            body,
            keys=(data["name"],) if data["target"] == "key" else (),
            room=data["name"] if data["target"] == "room" else "",
            to_all=data["target"] == "all",
            ttl=data["ttl"],
            store=data["store"],
            collapse_key=data["collapse_key"],
            send_at=at if at is None or at.tzinfo else timezone.make_aware(at),
            notify=notify_of(notify) if any(notify.values()) else None,
            notify_after=data["notify_after"],
            dedupe_id=digest(repr(sorted(data.items()))),
        )

    def _target(self) -> str:
        target, name = self.cleaned_data["target"], self.cleaned_data["name"]
        return "everyone" if target == "all" else f"the {target} {name!r}"

    def question(self) -> list[str]:
        """Ask, with the target and its current number of sessions."""
        target, name = self.cleaned_data["target"], self.cleaned_data["name"]
        registry = get_registry()
        if target == "all":
            count = sum(node.sessions for node in registry.nodes())
        elif target == "room":
            count, _ = registry.peek(name, 1)
        else:
            count = len(registry.sessions(name))
        kept = "It is kept for the key if it is not connected." if self.push.is_stored else ""
        size = f"{len(self.push.body):,} bytes"
        at = self.push.send_at
        later = f"It is sent at {utc_text(at, 'seconds')}." if isinstance(at, datetime) else ""
        notify = self.push.notify
        devices = f"Its devices show {notify.title!r} if it is not read in time." if notify else ""
        return [f"Push {size} to {self._target()}: {sessions(count)} now?", later, kept, devices]

    def perform(self, user: Any) -> str:
        """Accept the push; report and log nothing new if its dedupe id was used already."""
        by = f"dashboard:{user.get_username()}"[:CALLER_MAX]
        is_known = Dedupe.objects.known(by, [self.push.dedupe_id])
        message_id = accept_push(self.push, by)
        what = f"message {message_id} to {self._target()}"
        if is_known:
            return f"This was {what} already: it is not pushed again."
        change = f"Pushed {len(self.push.body)} bytes."
        _audit(user, ADDITION, Message, pk=message_id, what=what, change=change)
        return f"Message {message_id} to {self._target()} is accepted."

    def back(self) -> str:
        """Return the URL of the key's or room's page; of the overview for a push to everyone."""
        target, name = self.cleaned_data["target"], self.cleaned_data["name"]
        urls = {"key": key_url, "room": room_url}
        return urls[target](name) if target in urls else reverse("imgo:dashboard")


ACTIONS: dict[str, type[Action]] = {
    "kick-key": KickKey,
    "kick-session": KickSession,
    "drain-node": DrainNode,
    "revoke-token": RevokeToken,
    "push": PushMessage,
}
