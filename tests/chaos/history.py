"""What was pushed, answered and received, and whether that keeps the promises. No I/O.

Whoever makes a load tells a `History` of each push before it is sent, of each answer, and of each
session and what it receives. `check` compares: of all accepted pushes none lost, none unexpected,
none with a foreign key, none out of order, and each copy of a message with the same id.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from math import inf
from statistics import median

SHOWN = 5  # offenders of each kind that a result tells of


@dataclass(slots=True, eq=False)
class Answer:
    """One call of the API: `status` None when no answer came, 0 when nobody took the call.

    `is_unknown`: the answer was that the outcome is unknown.
    """

    asked: float
    answered: float
    status: int | None
    is_unknown: bool = False

    @property
    def is_accepted(self) -> bool:
        """Whether it says that the push is stored."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_refused(self) -> bool:
        """Whether it says that nothing was accepted."""
        if self.is_unknown:
            return False
        return self.status in {0, 503} or 400 <= (self.status or 0) < 500


@dataclass(slots=True, eq=False)
class Push:
    """One body on its way to one key or more; `numbers` is its place in the order of each."""

    body: str
    numbers: dict[str, int]
    started: float
    answers: list[Answer] = field(default_factory=list)
    id: int = 0
    accepted: float = inf  # when the first 2xx came

    @property
    def is_accepted(self) -> bool:
        """Whether it was answered 2xx."""
        return self.accepted < inf

    @property
    def is_refused(self) -> bool:
        """Whether every answer said that nothing was accepted."""
        return bool(self.answers) and all(answer.is_refused for answer in self.answers)


@dataclass(slots=True, eq=False)
class Receipt:
    """A message that a session has received; `id` 0 when its frames have none."""

    session: "Session"
    body: str
    id: int
    time: float


@dataclass(slots=True, eq=False)
class Session:
    """One connection of a device, from the reply to its auth frame to its end."""

    device: str
    key: str
    opened: float
    closed: float = inf
    receipts: list[Receipt] = field(default_factory=list)


@dataclass
class Result:
    """What a check found. Pushes are counted once for each of their keys."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0  # no answer, or one that does not say
    declared_unknown: int = 0  # those of them with an answer that the outcome is unknown
    delivered: int = 0  # accepted, and received by a session of the key at least
    lost: int = 0  # accepted, and not received by a session that should have it
    unexpected: int = 0  # received, and never pushed to anyone
    contradicted: int = 0  # received, and every answer said that nothing was accepted
    foreign: int = 0  # received by a key that it was not pushed to
    out_of_order: int = 0  # received by a device for the first time after a later one
    other_id: int = 0  # copies of one message with different ids, or not the one answered
    duplicates: int = 0  # copies beyond the first that a device received
    doubled: int = 0  # those of them that came in the same session
    details: dict[str, list[str]] = field(default_factory=dict)

    VIOLATIONS = (
        *("lost", "unexpected", "contradicted", "foreign", "out_of_order", "other_id", "doubled"),
    )

    @property
    def violations(self) -> dict[str, int]:
        """How many of each kind, if any."""
        found = {name: getattr(self, name) for name in self.VIOLATIONS}
        return {name: count for name, count in found.items() if count}

    def add(self, kind: str, detail: str) -> None:
        """Count an offender, and remember the first few."""
        setattr(self, kind, getattr(self, kind) + 1)
        shown = self.details.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(detail)

    def __str__(self) -> str:
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        lines = [", ".join(f"{name} {value}" for name, value in counts.items())]
        lines += [f"{kind}: {line}" for kind, some in self.details.items() for line in some]
        return "\n".join(lines)


class History:
    """The log of one load. Times are seconds of `clock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.pushes: dict[str, Push] = {}
        self.sessions: list[Session] = []
        self.answers: list[Answer] = []
        self.last_receipt = -inf
        self._accepted: list[Push] = []  # in the order in which that was said
        self._received: dict[tuple[str, str], float] = {}  # (key, body): the first time
        self._waiting: dict[tuple[str, str], Push] = {}  # accepted, and not received yet

    # What happened

    def attempt(self, body: str, numbers: dict[str, int]) -> Push:
        """A push is about to be sent for the first time. Its body must be its own."""
        assert body not in self.pushes, f"pushed before: {body}"
        push = self.pushes[body] = Push(body, dict(numbers), self.clock())
        return push

    def answer(
        self,
        push: Push,
        asked: float,
        status: int | None,
        message_id: int = 0,
        *,
        is_unknown: bool = False,
    ) -> Answer:
        """A call that was made at the time `asked` has ended, with or without an answer."""
        answer = Answer(asked, self.clock(), status, is_unknown)
        push.answers.append(answer)
        self.answers.append(answer)
        if answer.is_accepted and not push.is_accepted:
            push.accepted, push.id = answer.answered, message_id
            self._accepted.append(push)
            for key in push.numbers:
                if (key, push.body) not in self._received:
                    self._waiting[key, push.body] = push
        return answer

    def opened(self, device: str, key: str) -> Session:
        """A session of a device has been replied to."""
        session = Session(device, key, self.clock())
        self.sessions.append(session)
        return session

    def received(self, session: Session, body: str, message_id: int = 0) -> None:
        """A session has received a message."""
        now = self.last_receipt = self.clock()
        session.receipts.append(Receipt(session, body, message_id, now))
        self._received.setdefault((session.key, body), now)
        self._waiting.pop((session.key, body), None)

    def closed(self, session: Session) -> None:
        """A session has ended, whoever ended it."""
        session.closed = min(session.closed, self.clock())

    # What can be asked while it goes on

    @property
    def accepted(self) -> int:
        """How many pushes were accepted."""
        return len(self._accepted)

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """(key, body) of what was accepted and has not been received by anybody."""
        return list(self._waiting)

    def arrived(self, push: Push) -> float:
        """When the last of its keys has received it for the first time; infinity if not yet."""
        return max(self._received.get((key, push.body), inf) for key in push.numbers)

    def accepted_between(self, start: float, end: float = inf) -> list[Push]:
        """The pushes that were accepted in that time, in that order."""
        first = bisect_left(self._accepted, start, key=lambda push: push.accepted)
        return list(takewhile(lambda push: push.accepted < end, self._accepted[first:]))

    def recovery(self, end: float) -> float:
        """Seconds from `end` until the first push that was accepted after it had arrived."""
        first = bisect_left(self._accepted, end, key=lambda push: push.accepted)
        return self.arrived(self._accepted[first]) - end if first < self.accepted else inf

    def caught_up(self, end: float) -> float:
        """Seconds from `end` until all that was accepted before it had arrived."""
        arrivals = map(self.arrived, self.accepted_between(-inf, end))
        return max(0.0, max(arrivals, default=end) - end)

    def delay(self, start: float, end: float) -> float:
        """Seconds from yes to arrival of a push that was accepted in that time: the median."""
        some = self.accepted_between(start, end)
        return median(self.arrived(push) - push.accepted for push in some) if some else 0.0

    # What is checked

    def check(self, start: float = -inf, end: float = inf) -> Result:
        """Compare what was pushed from `start` until `end` with what was received.

        What was never pushed has no such time: it is part of every check.
        """
        result = Result()
        chosen = {b: p for b, p in self.pushes.items() if start <= p.started < end}
        _count(result, chosen.values())
        self._check_strangers(result, chosen)
        self._check_lost(result, chosen.values())
        by_device: dict[str, list[Session]] = defaultdict(list)
        for session in self.sessions:
            by_device[session.device].append(session)
        for device, sessions in by_device.items():
            receipts = sorted((r for s in sessions for r in s.receipts), key=lambda r: r.time)
            known = [r for r in receipts if r.body in chosen]
            self._check_order(result, device, known)
            _check_copies(result, device, known)
        self._check_ids(result, chosen)
        return result

    def _receipts(self) -> Iterable[Receipt]:
        return (receipt for session in self.sessions for receipt in session.receipts)

    def _check_strangers(self, result: Result, chosen: dict[str, Push]) -> None:
        for receipt in self._receipts():
            key, push = receipt.session.key, self.pushes.get(receipt.body)
            if push is None:
                result.add("unexpected", f"{key} received {receipt.body}, never pushed")
            elif receipt.body not in chosen:
                continue
            elif key not in push.numbers:
                result.add("foreign", f"{key} received {push.body}, for {list(push.numbers)}")
            elif push.is_refused:
                said = [answer.status for answer in push.answers]
                result.add("contradicted", f"{key} received {push.body}, answered {said}")

    def _check_lost(self, result: Result, chosen: Iterable[Push]) -> None:
        """A session that was there before the push and stays to the end must have it; and so
        must one session of the key at least, if none stayed."""
        staying: dict[str, list[Session]] = defaultdict(list)
        for session in self.sessions:
            if session.closed == inf:
                staying[session.key].append(session)
        had = {id(s): {r.body for r in s.receipts} for some in staying.values() for s in some}
        for push in chosen:
            if not push.is_accepted:
                continue
            for key, number in push.numbers.items():
                what = f"{key} number {number} (id {push.id}, pushed {push.started:.3f})"
                if (key, push.body) not in self._received:
                    result.add("lost", f"{what} was received by nobody")
                    continue
                result.delivered += 1
                for session in staying[key]:
                    if session.opened < push.started and push.body not in had[id(session)]:
                        result.add("lost", f"{what} was not received by {session.device}")

    def _check_order(self, result: Result, device: str, receipts: list[Receipt]) -> None:
        """By first receipt, across a device's sessions."""
        seen: set[str] = set()
        highest, before = -1, ""
        for receipt in receipts:
            push, key = self.pushes[receipt.body], receipt.session.key
            if receipt.body in seen or key not in push.numbers or not push.is_accepted:
                continue
            seen.add(receipt.body)
            number = push.numbers[key]
            if number < highest:
                what = f"number {number} (id {push.id}) at {receipt.time:.3f}"
                result.add("out_of_order", f"{device}: {what} after {highest} ({before})")
            else:
                highest, before = number, f"id {push.id}, at {receipt.time:.3f}"

    def _check_ids(self, result: Result, chosen: dict[str, Push]) -> None:
        ids: dict[str, int] = {b: p.id for b, p in chosen.items() if p.is_accepted}
        for receipt in self._receipts():
            if receipt.id and receipt.body in chosen:
                first = ids.setdefault(receipt.body, receipt.id)
                if receipt.id != first:
                    who = receipt.session.device
                    result.add("other_id", f"{who} received id {receipt.id}, not {first}")


def _count(result: Result, pushes: Iterable[Push]) -> None:
    for push in pushes:
        count = len(push.numbers)
        if push.is_accepted:
            result.accepted += count
        elif push.is_refused:
            result.refused += count
        else:
            result.unknown += count
            if any(answer.is_unknown for answer in push.answers):
                result.declared_unknown += count


def _check_copies(result: Result, device: str, receipts: list[Receipt]) -> None:
    counts = Counter(receipt.body for receipt in receipts)
    result.duplicates += sum(counts.values()) - len(counts)
    seen: set[tuple[int, str]] = set()
    for receipt in receipts:
        place = (id(receipt.session), receipt.body)
        if place in seen:
            result.add("doubled", f"{device} twice in a session: {receipt.body} at {receipt.time}")
        seen.add(place)
