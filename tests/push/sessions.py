"""Sessions over a link that records its writes, and readers of the written frames."""

import asyncio
import json
import time
from typing import Any, NamedTuple

from accounts.identity import Identity
from push.node.node import Node
from push.registry.base import Entry
from push.session.outgoing import Kind, OutgoingMessage
from push.session.session import Session, Written
from push.wire import Frame, decode_binary

MAX_BODY = 10**6  # bytes


class KeptLink:
    """A link whose client reads everything at once, or, when it is `slow`, nothing."""

    def __init__(self) -> None:
        self.waiting = 0
        self.session: Session | None = None
        self.slow = False
        self.written: list[bytes] = []
        self.receipts: list[int] = []
        self.closed: list[tuple[int, str]] = []

    wraps = False
    joins_packets = False

    @staticmethod
    def wrap(payload: bytes, is_text: bool) -> bytes:
        return payload

    def write_rest(self, data: bytes, sent: int, receipt: int) -> None:
        raise AssertionError("direct writes are never enabled")

    def enable_direct_send(self) -> None:
        pass

    def write(self, data: bytes, receipt: int = 0) -> None:
        if not self.closed:
            self.written.append(data)
            self.receipts.append(receipt)
            if receipt and not self.slow and self.session is not None:
                self.session.sent(receipt)

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    async def drained(self) -> None:
        return None


class KeptKeeper:
    """Owner of sessions that records their calls."""

    def __init__(self, acknowledged: list[tuple[int, str]]) -> None:
        self.acknowledged = acknowledged
        self.late: list[int] = []
        self.unacknowledged_max = 10
        self.written = Written()

    def delivered(self, message_id: int, session: Session) -> None:
        if not session.acks:
            self.acknowledged.append((message_id, session.key))

    def deliver_late(self, session: Session, message: OutgoingMessage) -> None:
        self.late.append(message.id)

    def audience(self, session: Session) -> int:
        return 1_000


def make_session(
    name: str = "s1",
    *,
    kind: Kind = Kind.TCP,
    acks: bool = False,
    accepts: list[int] | None = None,
    key: str = "u1",
    acknowledged: list[tuple[int, str]] | None = None,
    keeper: KeptKeeper | None = None,
    is_goim: bool = False,
) -> Session:
    """A session of `key` that adds the messages it received to `acknowledged`."""
    link = KeptLink()
    if keeper is None:
        keeper = KeptKeeper([] if acknowledged is None else acknowledged)
    options: dict[str, Any] = {"acks": acks, "accepts": accepts, "is_goim": is_goim}
    session = Session(name, Identity(key), kind, link, keeper, **options)
    link.session = session
    return session


def message(id: int, key: str = "u1", body: bytes = b'{"n":1}', **fields: Any) -> OutgoingMessage:  # noqa: A002
    return OutgoingMessage(id, fields.get("op", 5), body, fields.get("is_json", True), key)


def read(kind: Kind, data: bytes) -> list[Frame]:
    """The frames in bytes written to a session of this kind; JSON bodies as their text."""
    if not kind.is_json:
        return decode_binary(data, MAX_BODY)
    objects = [e.value for e in events(data) if e.data] if kind is Kind.EVENTS else json.loads(data)
    return [
        Frame(o["ver"], o["op"], o["seq"], json.dumps(o["body"]).encode(), int(o.get("id", 0)))
        for o in objects
    ]


class Event(NamedTuple):
    """One block of a stream of events."""

    data: str = ""
    event: str = ""
    id: str | None = None
    retry: str = ""

    @property
    def value(self) -> Any:
        """The data, which is JSON."""
        return json.loads(self.data)


def events(stream: bytes) -> list[Event]:
    """The blocks of a stream of events, as a client reads them; no comments."""
    parsed = []
    *blocks, rest = stream.decode().split("\n\n")
    assert not rest, f"half a block: {rest!r}"
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            parsed.append(Event(**fields))
    return parsed


def frames(session: Session) -> list[Frame]:
    """Every frame that was written to the session, in order."""
    return [frame for data in session.link.written for frame in read(session.kind, data)]


def ids(session: Session) -> list[int]:
    """The ids of all messages that were written to the session, in order."""
    return [frame.id for frame in frames(session)]


def closed(session: Session) -> list[int]:
    """The codes that the session was closed with."""
    return [code for code, _ in session.link.closed]


async def admit(node: Node, key: str = "u1", *rooms: str, **options: Any) -> Session:
    """A session of `key` that the node has admitted, and that acknowledges with op 22."""
    session = make_session(node.new_session_id(), key=key, acks=True, **options)
    session.last_seen = asyncio.get_running_loop().time()
    session.opened = time.time()
    entry = Entry(session.id, key, node.id, "tcp", "192.0.2.1", "", session.opened)
    try:
        await node.admit(session, entry, list(rooms))
    except BaseException:
        await node.dismiss(session)
        raise
    return session
