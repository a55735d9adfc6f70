"""Sentences about the sessions of a key: the open ones, and the recorded ones."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from django.utils import timezone

from accounts.models import Token
from imgo_site.deployment import redis_url
from imgo_site.errors import ImgoError, Unavailable
from push.models import OnlineState, SessionRecord
from push.registry.base import Entry
from push.registry.select import get_registry
from push.session.session_records import SessionEvent
from push.status.phrases import kept_for, time_text

# Returns the sessions of a key. Raises an `ImgoError` if they are not known.
SessionsOf = Callable[[str], list[Entry]]


def registered(key: str) -> list[Entry]:
    """Return the sessions of a key from the registry.

    Raises `Unavailable` if it cannot be read, or if it is in the memory of another process.
    """
    registry = get_registry()
    if not redis_url() and not registry.nodes():
        raise Unavailable(
            "without REDIS_URL only the server's own process knows: "
            f"GET /api/v1/keys/{quote(key, safe='')}"
        )
    return registry.sessions(key)


def connected(key: str, sessions_of: SessionsOf) -> tuple[list[Entry], str]:
    """Return a key's sessions, and the reason why they are not known, "" if they are."""
    try:
        return sessions_of(key), ""
    except ImgoError as error:
        return [], error.message


def described(entry: Entry) -> str:
    """Return an open session with its transport, address, node and time."""
    since = datetime.fromtimestamp(entry.since, tz=UTC)
    return (
        f"Session {entry.id} ({entry.transport} from {entry.address} on node {entry.node}, "
        f"since {time_text(since)})"
    )


def recorded_events(key: str) -> list[str]:
    """Return one sentence for each recorded event of a key's last sessions."""
    return records_as_sentences(SessionRecord.objects.of(key))


def records_as_sentences(events: Mapping[str, SessionEvent]) -> list[str]:
    """Return one sentence for each of these session records."""
    if not events:
        return [f"No connection of this key in the last {kept_for()}."]
    return [_event(name, event) for name, event in sorted(events.items(), key=_time_of)]


def last_event(state: OnlineState | None) -> list[str]:
    """Return a sentence about the last online or offline event of a key, if it has one."""
    if state is None:
        return []
    name = "online" if state.is_online else "offline"
    return [f"Its last event is key.{name}, number {state.number}, of {time_text(state.at)}."]


def _time_of(item: tuple[str, SessionEvent]) -> float:
    return item[1].at


def _event(name: str, event: SessionEvent) -> str:
    at, where = (
        time_text(event.time),
        f"{event.transport} from {event.address} on node {event.node}",
    )
    if name == "opened":
        return f"Session {event.session} was opened at {at} ({where})."
    why = (f"{event.code} {event.reason}" if event.code else event.reason).rstrip(".")
    if name == "refused":
        return f"A session was refused at {at} ({where}): {why}."
    lasted = f"after {event.seconds:.1f} s"
    return f"Session {event.session} was closed at {at}, {lasted} ({where}): {why}."


def token(key: str) -> Iterator[str]:
    """Yield a sentence about a key's stored token if it is missing or has expired."""
    token = Token.objects.filter(key=key).first()
    if token is None:
        yield "The key has no stored token (a JWT or a login may still let it in)."
    elif token.is_expired(timezone.now()):
        yield f"The key's stored token expired at {time_text(token.expires_at)}."
