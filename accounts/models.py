"""Stored tokens of subscribers, and API keys of callers. The database has only their hashes."""

import hashlib
import json
import secrets
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.db.models import ExpressionWrapper
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils import timezone

from imgo_site.conf import conf
from imgo_site.errors import BadRequest, NotFound
from imgo_site.names import DASHBOARD_ROOM, check_name, has_control_characters

TOKEN_MAX = 1024  # characters of a token that a caller chose
NAME_MAX = 100  # characters of an API key's name
ID_DIGITS = 19  # a number with fewer decimal digits fits a 64-bit id
SCOPES = {
    "push": "push messages",
    "read": "read keys, rooms, nodes and counts",
    "tokens": "create, list and revoke tokens",
    "devices": "register, list and delete devices that get notifications",
    "admin": "kick sessions and remove nodes",
}


def digest(secret: str) -> str:
    """Return the SHA-256 of a token or API key in hex, as the database stores it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def check_rooms(rooms: object) -> None:
    """Raise `BadRequest` unless this is None or a list of room names or patterns."""
    if rooms is not None and not isinstance(rooms, list):
        raise BadRequest("rooms must be a list of room names.")
    for room in rooms or []:
        check_name(room, "room")


def check_join(rooms: object) -> None:
    """Raise `BadRequest` unless this is a list of rooms that a session can be put into."""
    if not isinstance(rooms, list):
        raise BadRequest("join must be a list of room names.")
    for room in rooms:
        if "*" in check_name(room, "room"):
            raise BadRequest(f"join has {room!r}: name each room, a pattern cannot be joined.")
        if room == DASHBOARD_ROOM:
            raise BadRequest(f"join has {room!r}, which is the dashboard's own room.")


def check_info(info: object) -> None:
    """Raise `BadRequest` unless this is None or an object that others in a room may see."""
    if info is None:
        return
    if not isinstance(info, dict):
        raise BadRequest("info must be a JSON object.")
    try:
        text = json.dumps(info, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (ValueError, TypeError, RecursionError):
        raise BadRequest("info must be a JSON object, with text in UTF-8.") from None
    if "\\u0000" in text.replace("\\\\", ""):  # not where a backslash is meant
        raise BadRequest("info must not contain the character U+0000: Postgres cannot store it.")
    if size > conf.PRESENCE_INFO_MAX:
        raise BadRequest(
            f"info has {size} bytes as JSON, and may have {conf.PRESENCE_INFO_MAX} "
            "(PRESENCE_INFO_MAX)."
        )


def _check_text(text: str) -> None:
    """Raise `BadRequest` for a token that no auth frame can carry."""
    if len(text) > TOKEN_MAX or has_control_characters(text):
        raise BadRequest(f"A token has at most {TOKEN_MAX} characters, and no control characters.")
    if _looks_like_json(text):
        raise BadRequest(
            "A token must not be a JSON object or a JSON string: as the bare token of an auth "
            "frame it would mean something else."
        )


def _looks_like_json(text: str) -> bool:
    """Return whether an auth frame with only this text would not have this text as its token."""
    if text.lstrip()[:1] not in ("{", '"'):
        return False
    try:
        return isinstance(json.loads(text), dict | str)
    except (ValueError, RecursionError):
        return False


def _check_token_join(rooms: object) -> None:
    """Raise `BadRequest` unless every session of a token can be in all of these rooms at once."""
    check_join(rooms)
    assert isinstance(rooms, list)
    if len(rooms) > conf.MAX_ROOMS_PER_SESSION:
        raise BadRequest(
            f"join has {len(rooms)} rooms. A session may be in {conf.MAX_ROOMS_PER_SESSION} rooms "
            "at most (MAX_ROOMS_PER_SESSION)."
        )


def _expiry(seconds: int) -> Any:
    """Return an SQL expression for the time `seconds` from now, by the database's clock.

    Raises `BadRequest` if that is beyond the calendar.
    """
    try:
        _ = timezone.now() + timedelta(seconds=seconds)
    except OverflowError:
        raise BadRequest("The time when the token expires is beyond the calendar.") from None
    return _from_now(seconds)


def _from_now(seconds: int) -> Any:
    """Return an SQL expression for the time `seconds` from now, by the database's clock.

    All processes share that clock.
    """
    return ExpressionWrapper(Now() + timedelta(seconds=seconds), models.DateTimeField())


class FoundToken(NamedTuple):
    """Members of a `Token` that a login needs, and the database's time of the query."""

    digest: str
    key: str
    rooms: list[str] | None
    join: list[str]
    info: dict[str, Any]
    expires_at: datetime | None
    now: datetime

    @property
    def is_expired(self) -> bool:
        """Whether the token had expired at the time of the query."""
        return self.expires_at is not None and self.expires_at <= self.now


def _among(digests: list[str]) -> RawSQL:
    """Return the condition that a token's digest is one of these, with one parameter."""
    sql = (
        "digest IN (SELECT jsonb_array_elements_text(%s::jsonb))"
        if connection.vendor == "postgresql"
        else "digest IN (SELECT value FROM json_each(%s))"
    )
    return RawSQL(sql, [json.dumps(digests)], output_field=models.BooleanField())  # noqa: S611


class TokenManager(models.Manager["Token"]):
    """Manager that creates and queries tokens."""

    def issue(
        self,
        key: str,
        *,
        token: str = "",
        expires_in: int | None = None,
        rooms: list[str] | None = None,
        join: list[str] | None = None,
        info: dict[str, Any] | None = None,
    ) -> tuple["Token", str]:
        """Create a token of `key`, replacing any older one; return the row and the token's text.

        `token`: the text; "" generates one. `expires_in`: seconds from now, None for never.
        `rooms`: names or `*` patterns that its sessions may join, None for the default.
        `join`: rooms that its sessions join when they open, None for none.
        `info`: what others in a room with presence see of the key, None for nothing.

        Raises `BadRequest` if an argument is not valid.
        """
        check_name(key, "key")
        text = token or secrets.token_urlsafe(24)
        _check_text(text)
        check_rooms(rooms)
        join = [] if join is None else join
        _check_token_join(join)
        check_info(info)
        row = Token(
            key=key,
            digest=digest(text),
            expires_at=None if expires_in is None else _expiry(expires_in),
            rooms=rooms,
            join=join,
            info={} if info is None else info,
            created_at=Now(),
        )
        with transaction.atomic():
            # A text opens sessions of only one key: the last key that was given this text.
            self.filter(digest=row.digest).exclude(key=key).delete()
            self.bulk_create(
                [row],
                update_conflicts=True,
                unique_fields=["key"],
                update_fields=["digest", "expires_at", "rooms", "join", "info", "created_at"],
            )
        return self.get(key=key), text

    def by_digest(self, digests: list[str]) -> dict[str, "FoundToken"]:
        """Return the tokens with these digests, also expired ones, by one query.

        The rows are no `Token`s, and the digests are one parameter. Django needs more time for an
        object and a parameter of each login in a storm than for all the rest of the query.
        """
        with_time = self.annotate(now=Now()).filter(_among(digests))
        rows = with_time.values_list("digest", "key", "rooms", "join", "info", "expires_at", "now")
        return {row[0]: FoundToken(*row) for row in rows}


class Token(models.Model):
    """Token that opens sessions of one key."""

    key = models.CharField(max_length=255, unique=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    rooms = models.JSONField(null=True, blank=True, help_text="Rooms it may join; null: default.")
    join = models.JSONField(
        default=list,
        # Processes of the previous release insert rows without this column.
        db_default=models.Value([], models.JSONField()),
        blank=True,
        help_text="Rooms that its sessions are in from the start.",
    )
    info = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        blank=True,
        help_text="What others in a room with presence see of the key, an object.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[TokenManager] = TokenManager()

    def __str__(self) -> str:
        return f"token of {self.key}"

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Raise `ValidationError` for a key or rooms that no session could have.

        The admin's form shows its text.
        """
        if self.join is None:  # the admin's field is empty
            self.join = []
        if self.info is None:
            self.info = {}
        super().clean_fields(exclude)
        checks = (
            ("key", _check_key),
            ("rooms", check_rooms),
            ("join", _check_token_join),
            ("info", check_info),
        )
        for name, check in checks:
            if name not in (exclude or ()):
                _check_field(name, check, getattr(self, name))

    def is_expired(self, now: datetime) -> bool:
        """Return whether the token expired at or before `now`."""
        return self.expires_at is not None and self.expires_at <= now


def _check_key(key: str) -> None:
    check_name(key, "key")


def _check_field(field: str, check: Callable[[Any], None], value: Any) -> None:
    try:
        check(value)
    except BadRequest as error:
        raise ValidationError({field: error.message}) from None


def _check_api_key_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise BadRequest(f"An API key's name has from 1 to {NAME_MAX} printable characters.")


class ApiKeyManager(models.Manager["ApiKey"]):
    """Manager that creates, revokes and queries API keys."""

    def issue(self, name: str, scopes: list[str]) -> tuple["ApiKey", str]:
        """Create an API key; return its row and its text, which is not stored.

        Raises `BadRequest` if the name or a scope is not valid.
        """
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise BadRequest(f"Unknown scope {unknown[0]!r}; there are: {', '.join(SCOPES)}.")
        _check_api_key_name(name)
        text = f"imgo_{secrets.token_urlsafe(30)}"
        row = self.create(name=name, digest=digest(text), hint=text[-4:], scopes=sorted(scopes))
        return row, text

    def revoke(self, which: str) -> "ApiKey":
        """Revoke the API key with this name or id; return its row.

        Raises `NotFound` if there is none, `BadRequest` if several have the name.
        """
        matches = list(self.filter(name=which, revoked_at=None)[:2]) if which.isprintable() else []
        if not matches and which.isdecimal() and len(which) < ID_DIGITS:
            matches = list(self.filter(pk=int(which), revoked_at=None))
        if not matches:
            raise NotFound(f"There is no API key {which!r} that could be revoked.")
        if len(matches) > 1:
            raise BadRequest(f"Several API keys have the name {which!r}: say which, by its id.")
        self.filter(pk=matches[0].pk).update(revoked_at=Now())
        return self.get(pk=matches[0].pk)

    def active(self, text: str) -> "ApiKey | None":
        """Return the API key with this text, None if there is none or it was revoked."""
        return self.filter(digest=digest(text), revoked_at=None).first()


class ApiKey(models.Model):
    """API key, with which a caller may use the API within its scopes."""

    name = models.CharField(max_length=NAME_MAX)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=4, editable=False, help_text="Its last four characters.")
    scopes = models.JSONField(default=list, help_text=f"Some of: {', '.join(SCOPES)}.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()

    class Meta:
        verbose_name = "API key"
        indexes: ClassVar = [models.Index(fields=["name"], name="apikey_name")]

    def __str__(self) -> str:
        return self.name

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Raise `ValidationError` for a name that a list could not show."""
        super().clean_fields(exclude)
        if "name" not in (exclude or ()):
            _check_field("name", _check_api_key_name, self.name)

    def clean(self) -> None:
        """Raise `ValidationError` for scopes that do not exist."""
        scopes: Any = self.scopes
        if not isinstance(scopes, list) or set(scopes) - set(SCOPES):
            raise ValidationError({"scopes": f"A JSON list of some of: {', '.join(SCOPES)}."})
