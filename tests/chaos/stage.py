"""Where a fault happens, and what all faults have in common.

`strike` injects a fault and waits until the load is served again; `missed` tells afterwards, from
the history, which of its pass figures were not met. A fault that hits nothing raises `NoEffect`.
"""

import asyncio
import random
import signal
import socket
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import ClassVar

import redis

from tests import eventually
from tests.e2e.harness import HOST, Cluster, Process
from tests.services import Postgres

from .device import Gap
from .history import Answer
from .load import Load

SUPERVISED = 2.0  # seconds until what was killed is started again, as a supervisor would
BACK_MAX = 10.0  # seconds until every session is back after its node was killed
ANSWER_MAX = 2.0  # seconds for an answer of the API while Redis is away


@dataclass
class Stage:
    """Where a fault happens: an installation with a load, and how long things last."""

    load: Load
    postgres: Postgres
    dice: random.Random = field(default_factory=random.Random)
    pause: float = 30.0  # seconds that Redis is stopped
    deaf: float = 20.0  # seconds that a worker is stopped
    slack: float = 1.0  # times as long as is promised: not what a busy machine is asked for
    remarks: list[str] = field(default_factory=list)  # what nobody has asked for

    @property
    def cluster(self) -> Cluster:
        """The installation that the load is on."""
        return self.load.cluster

    def now(self) -> float:
        """The history's clock."""
        return self.load.history.clock()

    def redis(self, patience: float = 10.0) -> redis.Redis:
        """A client of the cluster's Redis; one that waits so many seconds for an answer."""
        return redis.Redis.from_url(self.cluster.redis.url, socket_timeout=patience, protocol=2)

    async def supervise(self) -> None:
        """Start what has ended without being told to, and remark on it."""
        for process in self.cluster.processes:
            if not process.is_running:
                self.remarks.append(f"{process.name} ended with {process.status} by itself")
                await process.start_beside()


class NoEffect(AssertionError):
    """The fault hit nothing: what is measured after it would prove nothing."""


def require(effect: object, what: str) -> None:
    """Raises `NoEffect` unless the effect is there."""
    if not effect:
        raise NoEffect(what)


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in found for word in path.read_text().split()]


class Fault:
    """One fault. `began` and `ended` are times of the history; from `ended` all is there again."""

    name: ClassVar[str] = ""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.began = self.ended = inf
        self.recovery = inf

    async def strike(self) -> None:
        """Inject it, and wait until the load is served again."""
        stage = self.stage
        self.began = stage.now()
        await self.inject()
        self.ended = min(self.ended, stage.now())
        self.recovery = await stage.load.recovers(self.ended)
        await stage.load.all_there(30)
        await stage.supervise()

    async def inject(self) -> None:
        """Do it, show that it has an effect, and end it."""
        raise NotImplementedError

    def missed(self) -> list[str]:
        """The pass figures that were not met; to be asked when the load has drained."""
        return []

    # For the subclasses

    def answers(self, start: float, end: float) -> list[Answer]:
        """The answers to calls of that time that have come."""
        return [a for a in self.stage.load.history.answers if start <= a.asked < end]

    def gaps(self, start: float, end: float) -> list[Gap]:
        """The sessions that ended in that time."""
        return [gap for gap in self.stage.load.gaps if start <= gap.closed < end]

    def bad_answers(self) -> list[str]:
        """Answers of the fault's time that are no 2xx or 503, or took too long."""
        found = []
        for answer in self.answers(self.began, self.ended + self.recovery):
            seconds = answer.answered - answer.asked
            is_late = seconds > ANSWER_MAX * self.stage.slack
            if not (answer.is_accepted or answer.status == 503) or is_late:
                found.append(f"{self.name}: an answer {answer.status} after {seconds:.1f} s")
        return found

    def late_sessions(self) -> list[str]:
        """Sessions that were away for too long."""
        longest = BACK_MAX * self.stage.slack
        return [
            f"{self.name}: {gap.device} was away for {gap.seconds:.1f} s {gap.tries}"
            for gap in self.gaps(self.began, self.ended + longest)
            if gap.seconds > longest
        ]

    async def kill_and_restart(self, process: Process, port: int = 0) -> None:
        """SIGKILL to a process and its children; some time later it is started again."""
        process.kill()
        require(process.status == -signal.SIGKILL, f"{process.name} did not die: {process.status}")
        if port:
            await eventually(lambda: refuses(port))  # its children die a moment later
        await asyncio.sleep(SUPERVISED)
        await process.start_beside()
