"""What is to be pushed, and what became of it: without I/O."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from imgo_client.errors import ApiError, BadAnswer, api_error
from imgo_client.frames import parse_json, to_json

PIECE_PUSHES = 500  # of one request; a server takes 1,000
PIECE_BYTES = 2**20  # of one request; a server takes 16 MiB


@dataclass(frozen=True)
class Push:
    """One push: a body for exactly one of a key, some keys, a room, or all.

    - `body`: any JSON value; bytes are JSON text, and clients receive them as they are.
    - `ttl`: seconds that it may wait for its keys. `store`: False: only for who is connected now.
    - `op`: 5, or 1,000 and more for clients that tell messages apart by it.
    - `ensure`: to a room or to all, it waits for a busy node instead of being dropped there.
    - `send_at`: when it is due: a datetime with a zone, its ISO form, or a number of seconds, which
      count from when the server accepts it. `ttl` counts from then.
    - `exclude`: ids of sessions that do not get it, at most 10; not with `all`.
    - `collapse_key`: it replaces older pushes with the same one to the same key or room, as far as
      they wait or are kept; not with `all`.
    - `version`: a number for the collapse key. A push with a lower one than the last is dropped.
    - `notify`: what devices of the keys show if the push is still pending `notify_after` seconds
      after it is due: a dictionary with `title`, and, if wanted, `body`, `url`, `icon`, `tag` and
      `data`.
    - `dedupe_id`: made up unless given. The server takes a push with the same one, from the same
      API key within a day, for this one again: so it is with this very object.

    Raises ValueError or TypeError for what cannot be pushed.
    """

    body: Any
    key: str | None = None
    keys: Sequence[str] | None = None
    room: str | None = None
    all: bool = False
    ttl: int | None = None
    store: bool = True
    op: int = 5
    ensure: bool = False
    dedupe_id: str = ""
    send_at: datetime | float | str | None = None
    exclude: Sequence[str] = ()
    collapse_key: str = ""
    version: int | None = None
    notify: Mapping[str, Any] | None = None
    notify_after: float | None = None
    encoded: bytes = field(default=b"", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        targets = {"key": self.key, "keys": self.keys, "room": self.room, "all": self.all or None}
        to = {name: value for name, value in targets.items() if value is not None}
        if len(to) != 1:
            raise ValueError("a push is for exactly one of key, keys, room, or all=True")
        if isinstance(self.keys, str):
            raise TypeError("keys is a list of strings; for one there is key")
        if self.keys is not None:
            to["keys"] = list(self.keys)
        if not self.dedupe_id:
            object.__setattr__(self, "dedupe_id", uuid.uuid4().hex)
        if isinstance(self.exclude, str):
            raise TypeError("exclude is a list of session ids")
        head = to_json(self._head(to))[:-1].encode()
        encoded = b'%b,"body":%b}' % (head, _encoded_body(self.body))
        object.__setattr__(self, "encoded", encoded)

    def _head(self, to: dict[str, Any]) -> dict[str, Any]:
        """Return the members of the push, without its body and without defaults of the server."""
        members = {
            "ttl": self.ttl,
            "store": None if self.store else "never",
            "op": None if self.op == 5 else self.op,
            "ensure": self.ensure or None,
            "send_at": None if self.send_at is None else _time(self.send_at),
            "collapse_key": self.collapse_key or None,
            "version": self.version,
            "exclude": list(self.exclude) or None,
            "notify": None if self.notify is None else dict(self.notify),
            "notify_after": self.notify_after,
        }
        options = {name: value for name, value in members.items() if value is not None}
        return {"to": to, "dedupe_id": self.dedupe_id, **options}


def _time(send_at: datetime | float | str) -> float | str:
    """A time as the server reads it. Raises ValueError without a zone."""
    if not isinstance(send_at, datetime):
        return send_at
    if send_at.tzinfo is None:
        raise ValueError(f"send_at needs a zone, which {send_at} has not")
    return send_at.isoformat()


def _encoded_body(body: Any) -> bytes:
    if not isinstance(body, (bytes, bytearray)):
        return to_json(body).encode()
    parse_json(body.decode())  # what is no JSON could pass itself off as more pushes
    # A line of a stream ends at the first line end. JSON's strings have none in them.
    return bytes(body).replace(b"\n", b" ").replace(b"\r", b" ")


@dataclass(frozen=True)
class Result:
    """What became of a push: its `id`, or an `error`, and then the id is 0."""

    id: int
    push: Push = field(repr=False)
    error: ApiError | None = None


def pieces(pushes: Iterable[Push], most: int = PIECE_PUSHES) -> Iterator[list[Push]]:
    """What goes into one request each: bounded in number and, but for a single push, in bytes."""
    pile = Pile(most)
    for push in pushes:
        if full := pile.add(push):
            yield full
    if rest := pile.take():
        yield rest


class Pile:
    """Pushes that gather for one request."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError("a piece has at least one push")
        self._most = most
        self._pushes: list[Push] = []
        self._size = 0

    def add(self, push: Push) -> list[Push]:
        """The pile that this one did not fit on; empty when it did."""
        if not isinstance(push, Push):
            raise TypeError(f"a Push is wanted, not {type(push).__name__}")
        size = len(push.encoded) + 1
        is_full = len(self._pushes) >= self._most or self._size + size > PIECE_BYTES
        full = self.take() if is_full else []
        self._pushes.append(push)
        self._size += size
        return full

    def take(self) -> list[Push]:
        """What is there; then it is empty."""
        pushes, self._pushes, self._size = self._pushes, [], 0
        return pushes


@dataclass(frozen=True)
class Form:
    """How pushes are written into one request, and read from its answer."""

    path: str
    content_type: str

    def write(self, pushes: Sequence[Push]) -> bytes:
        """The request's content."""
        raise NotImplementedError

    def read(self, content: bytes) -> list[Any]:
        """An answer for each push. Raises ValueError."""
        raise NotImplementedError


class _Array(Form):
    def write(self, pushes: Sequence[Push]) -> bytes:
        return b"[%b]" % b",".join([push.encoded for push in pushes])

    def read(self, content: bytes) -> list[Any]:
        answers = parse_json(content)
        if not isinstance(answers, list):
            raise ValueError("no array")
        return answers


class _One(Form):
    def write(self, pushes: Sequence[Push]) -> bytes:
        return pushes[0].encoded

    def read(self, content: bytes) -> list[Any]:
        return [parse_json(content)]


class _Lines(Form):
    def write(self, pushes: Sequence[Push]) -> bytes:
        return b"".join([push.encoded + b"\n" for push in pushes])

    def read(self, content: bytes) -> list[Any]:
        return [parse_json(line) for line in content.splitlines()]


ONE = _One("/api/v1/pushes", "application/json")
ARRAY = _Array("/api/v1/pushes", "application/json")
LINES = _Lines("/api/v1/pushes/stream", "application/x-ndjson")


def results(form: Form, content: bytes, pushes: Sequence[Push]) -> list[Result]:
    """What an answer says of each push. Raises `BadAnswer`, or ValueError when it is cut off."""
    answers = form.read(content)
    if len(answers) < len(pushes):
        raise ValueError("answers are missing")
    if len(answers) > len(pushes):
        raise BadAnswer("there are more answers than pushes", tuple(pushes))
    return [_result(*pair) for pair in zip(answers, pushes)]  # noqa: B905 - as many, see above


def _result(answer: Any, push: Push) -> Result:
    if isinstance(answer, dict):
        if isinstance(error := answer.get("error"), dict):
            return Result(0, push, api_error(error, (push,)))
        if isinstance(number := answer.get("id"), str) and number.isdecimal():
            return Result(int(number), push)
    raise BadAnswer("an answer has neither an id nor an error", (push,))
