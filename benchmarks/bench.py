"""What the scenarios share: the servers, the rows they report, set-up, and the stock baseline."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt

from benchmarks import proc
from benchmarks.client import Client
from benchmarks.generator import Opening
from benchmarks.load import Load
from benchmarks.processes import Process
from benchmarks.servers import JWT_SECRET, Api, Node, Stack

ROOM = "bench"
TOGETHER = 0.5  # seconds within which rows are of one measurement
FRAME = 46  # bytes on the wire of one message, as in performance.md
# Of the cores: where other programs used more, a figure is marked and no verdict is printed.
DISTURBED = 0.1
STARVED = 0.9  # of a core; a generator process that used more may have been the bottleneck
# A body, as JSON, that makes a frame of 46 bytes; `^` is what the generator counts.
BODIES = {"websocket": "^" + "x" * 7, "tcp": "^" + "x" * 27, "sse": "^"}


@dataclass(frozen=True)
class Target:
    """A line of performance.md: what a value, or its ratio, must not exceed or fall below."""

    limit: float
    unit: str
    at_least: bool = False
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:,.10g} {self.unit}"

    def is_reached(self, value: float) -> bool:
        """Whether a measured value is on the right side."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass
class Row:
    """One measured thing; `value` is None when it could not be measured, and `note` says why.

    `others`: the share of all cores that other programs used while it was measured, 0 to 1.
    """

    scenario: str
    what: str
    value: float | None
    unit: str = ""
    ratio: float | None = None
    ratio_of: str = ""
    target: Target | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    others: float = 0.0

    @property
    def is_disturbed(self) -> bool:
        """Whether other programs used so much of the machine that the figure cannot be trusted."""
        return self.others > DISTURBED

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without a target or a value, or when disturbed."""
        judged = self.ratio if self.target and self.target.of_ratio else self.value
        if self.target is None or judged is None or self.is_disturbed:
            return None
        return self.target.is_reached(judged)


class Bench:
    """One run of scenarios: the processes under test, and the rows of its report."""

    def __init__(self, stack: Stack, say: Callable[[str], None], *, full: bool) -> None:
        self.stack = stack
        self.full = full
        self.rows: list[Row] = []
        self.known: dict[str, Any] = {}  # what one scenario measured and another needs
        self.generators: dict[str, float] = {}  # busiest generator process, share of a core
        self._say = say
        self._scenario = ""
        self._seeded = 0
        self._others = proc.OtherPrograms()
        self._others_share = 0.0

    def begin(self, scenario: str) -> None:
        """Rows from now on belong to `scenario`."""
        self._scenario = scenario
        self._others.share()

    def step(self, text: str) -> None:
        """Tell what is being done."""
        self._say(f"{self._scenario}: {text}")

    def row(self, what: str, value: float | None, unit: str = "", **more: Any) -> Row:
        """Add a row to the report, and return it."""
        row = Row(self._scenario, what, value, unit, others=self._share_of_others(), **more)
        self.rows.append(row)
        return row

    def _share_of_others(self) -> float:
        """Return the share since the rows before; rows of one measurement share it."""
        if self._others.seconds > TOGETHER:
            self._others_share = self._others.share()
        return self._others_share

    def sizes(self, short: Any, full: Any) -> Any:
        """The one for this run's set."""
        return full if self.full else short

    # Servers

    def worker(self) -> Process:
        """The worker, started when first asked for."""
        worker: Process = self._shared("worker", self.stack.worker)
        return worker

    def api(self) -> Api:
        """The API, started when first asked for."""
        api: Api = self._shared("api", self.stack.api)
        return api

    def client(self) -> Client:
        """A connection to the API, with a worker behind it."""
        self.worker()
        return Client(self.api().port)

    def _shared(self, name: str, start: Callable[[], Any]) -> Any:
        if name not in self.known:
            self.known[name] = start()
        return self.known[name]

    def server_cpu(self, node: Node) -> dict[str, float]:
        """CPU seconds of each server so far: node, worker, api, postgres, redis."""
        return {
            "node": node.cpu(),
            "worker": self.worker().cpu(),
            "api": self.api().cpu(),
            "postgres": self.stack.postgres_cpu(),
            "redis": self.stack.redis_cpu(),
        }

    # Sessions

    def auths(
        self, count: int, first: int = 0, rooms: Sequence[str] = (), *, jwts: bool = False
    ) -> list[bytes]:
        """Auth bodies, each with a key and token of its own; the tokens are in the database."""
        if not jwts:
            self.seed_tokens(first + count)
            return self.token_auths(count, first, rooms)
        expires = int(time.time()) + 86_400
        tokens = (
            jwt.encode({"sub": f"bench-{number}", "exp": expires}, JWT_SECRET, "HS256")
            for number in range(first, first + count)
        )
        return [_auth(token, rooms) for token in tokens]

    @staticmethod
    def token_auths(count: int, first: int, rooms: Sequence[str] = ()) -> list[bytes]:
        """Auth bodies of stored tokens that the database knows already."""
        numbers = range(first, first + count)
        return [_auth(f"bench-token-{number:07d}", rooms) for number in numbers]

    def seed_tokens(self, count: int) -> None:
        """See that the first `count` keys have tokens."""
        if count > self._seeded:
            self.stack.seed("tokens", self._seeded, count - self._seeded)
            self._seeded = count

    def open(
        self,
        load: Load,
        node: Node,
        transport: Any,
        auths: list[bytes],
        first: int = 0,
        *,
        inflight: int = 256,
    ) -> dict[str, float]:
        """Open sessions at a node; what that cost."""
        stack = self.stack
        before = node.cpu(), stack.postgres_cpu(), stack.redis_cpu()
        opened = load.open(Opening([node.target(transport)], transport, auths, first, inflight))
        cpu, postgres, redis = (
            after - start
            for after, start in zip(
                (node.cpu(), stack.postgres_cpu(), stack.redis_cpu()), before, strict=True
            )
        )
        return {
            "sessions": opened.opened,
            "wall_s": opened.seconds,
            "node_cpu_s": cpu,
            "postgres_cpu_s": postgres,
            "redis_cpu_s": redis,
            "generator_cpu_s": opened.cpu,
        }

    def note_generator(self, load: Load, before: list[float], wall: float) -> float:
        """Keep how busy the generator was; returns the busiest process's share of a core."""
        used = [after - start for after, start in zip(load.cpu(), before, strict=True)]
        share = max(used) / wall if wall else 0.0
        self.generators[self._scenario] = max(share, self.generators.get(self._scenario, 0.0))
        return share


def _auth(token: str, rooms: Sequence[str]) -> bytes:
    return json.dumps({"token": token, "rooms": list(rooms)}).encode()


def text_frame(body: str) -> str:
    """The text message of a body, as a node writes it: for the stock baseline."""
    return f'[{{"ver":1,"op":5,"seq":0,"body":"{body}"}}]'
