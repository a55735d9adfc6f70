"""Value types of this app's interface: messages, receipts, pages, outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from imgo_site.postgres.outcome import Trace
from imgo_site.snapshots import Snapshot, WholeDatabase


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is to be stored.

    `keys`: all keys of the message, each once; with `stored` it becomes pending for them. `ttl`:
    seconds. `hashes`: of its keys or its room, which decide the partitions that fan it out.
    `dedupe_id`: "" for none. `sender`: the key of the client that publishes it. `exclude`: ids of
    the sessions that do not get it, separated by commas.

    `collapse_key`: "" for none. `version`: compared with the last one of the collapse key; None for
    none.

    `send_at` or `send_in` (seconds): when it is due, by the database's clock; None for now. A
    message that is due later becomes a row of `ScheduledPush` instead.

    `notify`: JSON of the notification for devices of its keys, "" for none. `notify_after`: seconds
    from when the message is due.
    """

    body: bytes
    ttl: float
    audience: str = "keys"
    keys: tuple[str, ...] = ()
    room: str = ""
    stored: bool = True
    op: int = 5
    is_json: bool = True
    by: str = ""
    ensure: bool = False
    speed: int = 0
    origin: str = ""
    hashes: tuple[int, ...] = (0,)
    dedupe_id: str = ""
    sender: str = ""
    exclude: str = ""
    collapse_key: str = ""
    version: int | None = None
    send_at: datetime | None = None
    send_in: float | None = None
    notify: str = ""
    notify_after: float = 0.0

    @property
    def is_timed(self) -> bool:
        """Whether it names the time at which it is due."""
        return self.send_at is not None or self.send_in is not None

    def receivers(self, devices: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
        """Return the (key, device) that the message becomes pending for.

        `devices`: key → names of its devices. Other keys have the device "".
        """
        if not self.stored:
            return []
        if not devices:
            return [(key, "") for key in self.keys]
        return [(key, name) for key in self.keys for name in devices.get(key, ("",))]


@dataclass(frozen=True, slots=True)
class DedupeTable:
    """Table of dedupe ids. It keeps an id for `window` seconds."""

    name: str
    window: float


@dataclass(frozen=True, slots=True)
class Stored:
    """Result of a transaction that stored messages, in the order of the messages.

    `ids`: of a message whose dedupe id was used before, the first one's id. `is_new`: whether
    this transaction stored the message. `partitions`: the number over which the messages were
    spread; without any it says nothing. `at`: the time that its rows carry. `trace` and `at` are
    None on SQLite, where no answer to a COMMIT is lost. `ended`: by reason, numbers of
    deliveries and of pushes to rooms that these messages replaced, or that are stale.
    """

    ids: list[int]
    is_new: list[bool]
    partitions: int
    trace: Trace | None = None
    at: datetime | None = None
    ended: Mapping[str, int] = field(default_factory=dict)


class OutboxMessage(msgspec.Struct, eq=False, gc=False):
    """A message as a drain reads it. The names are those of `Message`.

    A drain reads thousands in a second, and an instance of a model takes ten times as long.
    """

    pk: int
    audience: str
    room: str
    keys: list[str] | None
    stored: bool
    op: int
    body: bytes
    is_json: bool
    ensure: bool
    speed: int
    sender: str
    collapse_key: str
    created_at: datetime


class OutboxRow(msgspec.Struct, eq=False):
    """A row of the outbox as a drain reads it, with its message.

    `is_late`: whether the message had expired. `age`: seconds since it was accepted, by the
    database's clock. `generation`: number of the transaction that drains the partition; later
    drains have higher numbers, 0 is unknown.

    The drain sets the others. `place`: epoch and offset in the room's stream; None without a
    stream, or before the message has one. `replaced_for`: the keys, or the room, for which the
    message was replaced. `span`: trace span of the fan-out in progress; None if it is not traced.
    """

    pk: int
    message: OutboxMessage
    partition: int
    partitions: int
    attempts: int
    is_late: bool
    age: float
    origin: str
    exclude: str
    generation: int
    place: tuple[str, int] | None = None
    replaced_for: frozenset[str] = frozenset()
    span: Any = None

    @property
    def message_id(self) -> int:
        """The message's id."""
        return self.message.pk


class Receipt(NamedTuple):
    """Report of a node about one delivery. `age`: seconds since it happened.

    `kind`: `sent` to a session that acknowledges itself; `received` by the kernel for one that
    cannot; `acknowledged` by the client.
    """

    message_id: int
    key: str
    kind: str
    session: str
    age: float = 0.0


class DeviceReceipt(NamedTuple):
    """Receipt of a session of a key with the scope `each`.

    `device`: its name, "" for a session that has given none.
    """

    message_id: int
    key: str
    kind: str
    session: str
    age: float
    device: str


class Delivered(NamedTuple):
    """Delivery of a message to a session of its key.

    `age`: seconds since then; 0 while the message is pending. `xmin`: of the event that records
    it; 0 on SQLite, None while the message is pending.
    """

    age: float
    xmin: int | None


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """One message for a session of its key.

    `had`: seconds since a session of the key has had it; None while it is pending. `had_xmin`: of
    the event that records that; None where it is not known. `exclude`: ids of the sessions that do
    not get it, separated by commas. `device`: the device of the key, in a page of devices.
    """

    id: int
    op: int
    body: bytes
    is_json: bool
    had: float | None = None
    had_xmin: int | None = None
    exclude: str = ""
    device: str = ""


class MessagePage(list[PendingMessage]):
    """Messages of one page, in order of id.

    `snapshot`: of the query that read them; None if it cannot be known.
    """

    snapshot: Snapshot | WholeDatabase | None = None


Page = tuple[str, int]  # a key, and the id that its messages must be above
HistoryPage = tuple[str, int, int]  # the same, and a second such id, equal for all pages


class DevicePage(NamedTuple):
    """Page of the messages of some devices of a key, with ids above `after` and `since`."""

    key: str
    after: int
    since: int
    devices: tuple[str, ...]
