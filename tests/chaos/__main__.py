"""The long form: a load of thousands of pushes while one fault follows the other.

`make chaos` runs it; `make chaos ARGS="--only redis --faults 5"` a part, and
`make chaos ARGS="--seeds 20"` twenty in a row, with one line for each. Its exit status is 0 when
nothing was lost, foreign or out of order, nothing came twice to a room, every fault's pass figures
were met, the books balance, and no log shows a traceback, a token or a message body.
"""

import argparse
import asyncio
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.e2e.harness import ROOT, Cluster, Database, logs, manage
from tests.fork_server import PLAIN_START
from tests.services import Postgres, postgres_programs, start_first

from .faults import FAULTS
from .history import Result
from .load import Load, Plan
from .stage import Fault, Stage

PUSHERS = 12
PAUSE = 0.18  # seconds between two calls of a pusher
BETWEEN = 100  # pushes that are accepted between two faults, at least: more than a second
NODES = 2
WIDTH = 132  # characters of a line that goes to a file
DELAY_MAX = 1.0  # seconds from yes to arrival between two faults, in the middle: all is back
DRAIN_MAX = 90.0  # seconds; a node looks at each of its keys once in 60


@dataclass
class Row:
    """What is told of one kind of fault."""

    times: int = 0
    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    recovery: float = 0.0
    caught_up: float = 0.0
    away: float = 0.0
    delay: float = 0.0

    def add(self, result: Result) -> None:
        """Count what was pushed in one fault's time."""
        for name in ("accepted", "delivered", "lost", "duplicates", "out_of_order"):
            setattr(self, name, getattr(self, name) + getattr(result, name))


@dataclass
class Run:
    """One run, and what went wrong in it."""

    arguments: argparse.Namespace
    console: Console
    dice: random.Random
    struck: list[Fault] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def go(self, cluster: Cluster, postgres: Postgres) -> Load:
        """Open the load, strike the faults, and wait until everything is delivered."""
        plan = Plan(self.arguments.sessions, PUSHERS, PAUSE, self.dice.getrandbits(32))
        async with Load(cluster, plan) as load:
            stage = Stage(load, postgres, self.dice)
            self.console.print(f"{len(load.devices)} sessions of {len(load.keys)} keys are open.")
            load.push()
            kinds = self._choose()
            for number, kind in enumerate(kinds):
                share = int((number + 0.5) * self.arguments.pushes / len(kinds))
                await load.accepts(max(BETWEEN, share - load.history.accepted), 900)
                await self._strike(kind(stage), number)
            await load.accepts(max(BETWEEN, self.arguments.pushes - load.history.accepted), 900)
            self.console.print("Draining ...")
            await load.drain(DRAIN_MAX, quiet=3)
            self.failures += stage.remarks
            self.failures += [line for fault in self.struck for line in fault.missed()]
        return load

    def _choose(self) -> list[type[Fault]]:
        """Each kind as often as the others, in any order."""
        word = self.arguments.only.lower()
        kinds = [k for k in FAULTS if word in k.name.lower() or word in k.__name__.lower()]
        if not kinds:
            sys.exit(f"No fault is called {word!r}: {', '.join(k.__name__ for k in FAULTS)}")
        chosen: list[type[Fault]] = []
        while len(chosen) < self.arguments.faults:
            chosen += self.dice.sample(kinds, len(kinds))
        return chosen[: self.arguments.faults]

    async def _strike(self, fault: Fault, number: int) -> None:
        try:
            await fault.strike()
        except AssertionError as error:
            self.failures.append(f"{fault.name}: {error}")
            self.console.print(f"[red]{self.failures[-1]}[/red]")
            fault.stage.postgres.start()
            fault.stage.cluster.redis.start()
            await fault.stage.supervise()
        self.struck.append(fault)
        accepted = fault.stage.load.history.accepted
        self.console.print(
            f"{number + 1:3} {fault.name:20} lasted {fault.ended - fault.began:5.1f} s,"
            f" recovered {fault.recovery:5.2f} s later; {accepted} pushes accepted"
        )

    def rows(self, load: Load) -> dict[str, Row]:
        """A row for each kind of fault: its time ends when the next one begins."""
        rows: dict[str, Row] = {}
        starts = [-inf, *(fault.began for fault in self.struck), inf]
        self._row(rows, "(before)").add(load.history.check(starts[0], starts[1]))
        for fault, start, end in zip(self.struck, starts[1:], starts[2:], strict=False):
            row = self._row(rows, fault.name)
            row.times += 1
            row.add(load.history.check(start, end))
            row.recovery = max(row.recovery, fault.recovery)
            row.caught_up = max(row.caught_up, load.caught_up(fault.ended))
            row.delay = max(row.delay, load.history.delay(fault.ended + fault.recovery, end))
            away = [gap.seconds for gap in fault.gaps(start, end)]
            row.away = max(row.away, *away, 0.0)
        return rows

    @staticmethod
    def _row(rows: dict[str, Row], name: str) -> Row:
        return rows.setdefault(name, Row())


def table_of(rows: dict[str, Row]) -> Table:
    """The rows for people."""
    table = Table(title="Faults under load")
    table.add_column("fault")
    for name in ("times", "accepted", "delivered", "lost", "duplicated", "out of order"):
        table.add_column(name, justify="right")
    for name in ("recovery", "caught up", "away", "delay"):
        table.add_column(f"{name} s", justify="right")
    for name, row in rows.items():
        counts = (row.times, row.accepted, row.delivered, row.lost, row.duplicates)
        seconds = (row.recovery, row.caught_up, row.away, row.delay)
        cells = [*map(str, (*counts, row.out_of_order)), *(f"{value:.1f}" for value in seconds)]
        table.add_row(name, *cells)
    return table


def settle(run: Run, load: Load, cluster: Cluster) -> None:
    """Print what was found; what is wrong goes to the failures."""
    result = load.history.check()
    rows = run.rows(load)
    run.console.print(table_of(rows))
    run.failures += [
        f"{name}: half of the pushes after it took {row.delay:.1f} s or more: by a sweep?"
        for name, row in rows.items()
        if row.delay > DELAY_MAX
    ]
    run.console.print(f"[bold]All:[/bold] {result}", highlight=False)
    refusals = sum((device.refusals for device in load.devices), Counter())
    closes = Counter(gap.code for gap in load.gaps)
    run.console.print(f"Refused connects: {dict(refusals)}; closes: {dict(closes)}")
    statuses = Counter(answer.status for answer in load.history.answers)
    run.console.print(f"Answers (None: none came, 0: connection refused): {dict(statuses)}")
    run.console.print(f"[bold]Rooms, live only:[/bold] {load.rooms.check()}", highlight=False)
    run.console.print(f"[bold]Rooms with history:[/bold] {load.kept.check()}", highlight=False)
    if wrong_rooms := load.kept_violations():
        run.failures.append(f"rooms with history: {'; '.join(wrong_rooms[:10])}")
    if result.violations:
        run.failures.append(f"the base pass failed: {result.violations}")
    if wrong := load.room_violations():
        run.failures.append(f"the rooms' messages are not at most once and in order: {wrong}")
    try:
        run.console.print(manage(cluster.environment, "conserve"), highlight=False)
    except AssertionError as error:
        run.failures.append(f"conserve: {error}")


def _shortened(complaint: str) -> str:
    """Of a log with tracebacks the line above and the last line of each."""
    lines = complaint.splitlines()
    if "Traceback" not in complaint:
        return lines[0]
    found = [lines[0]]
    for number, line in enumerate(lines):
        if line.startswith("Traceback"):
            end = next((n for n in range(number + 1, len(lines)) if lines[n][:1].strip()), number)
            found.append(f"  {lines[number - 1][:160]}: {lines[end][:160]}")
    return "\n".join(dict.fromkeys(found))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--pushes", type=int, default=10_000, help="accepted ones (%(default)s)")
    parser.add_argument("--sessions", type=int, default=200, help="%(default)s by default")
    parser.add_argument("--faults", type=int, default=24, help="%(default)s by default")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the choice")
    parser.add_argument("--seeds", type=int, default=1, help="runs in a row, each with the next")
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument("--home", type=Path, help="keep the logs there")
    return parser.parse_args(arguments)


def series(options: argparse.Namespace) -> int:
    """Run one seed after the other, each in a process of its own; one line for each.

    What a run prints, and its logs, are kept in a directory for its seed.
    """
    home = options.home or ROOT / "var" / "chaos"
    console, failed = Console(soft_wrap=True), 0
    for seed in range(options.seed, options.seed + options.seeds):
        mine = home / str(seed)
        mine.mkdir(parents=True, exist_ok=True)
        same = ("pushes", "sessions", "faults", "only")
        words = [word for name in same for word in (f"--{name}", str(getattr(options, name)))]
        command = [sys.executable, "-m", "tests.chaos", "--seed", str(seed), "--home", str(mine)]
        with (mine / "report.txt").open("w") as report:
            run = subprocess.run([*command, *words], stdout=report, check=False)
        last = (mine / "report.txt").read_text().splitlines()[-1:]
        failed += run.returncode != 0
        said = "".join(last) or "ended early"
        console.print(f"seed {seed}: {said}; {mine}/report.txt", highlight=False)
    console.print(f"{options.seeds - failed} of {options.seeds} passed", highlight=False)
    return bool(failed)


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status."""
    options = parse(arguments)
    if options.seeds > 1:
        return series(options)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=True)
    console.print(f"Seed {options.seed}: --seed {options.seed} makes the same choices again.")
    run = Run(options, console, random.Random(options.seed))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imgo-chaos-") as temporary:
        home = options.home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        postgres = start_first(Postgres, home, postgres_programs())
        try:
            template = Database(postgres.url)
            template.migrate()
            with Cluster(home, template, NODES) as cluster:
                load = asyncio.run(run.go(cluster, postgres))
                settle(run, load, cluster)
        finally:
            postgres.remove()
        run.failures += map(_shortened, logs.complaints())
    for failure in run.failures:
        console.print(f"[red]FAILED[/red] {failure}", highlight=False)
    verdict = "[red]failed[/red]" if run.failures else "[green]passed[/green]"
    console.print(f"{verdict} after {time.monotonic() - start:.0f} s, seed {options.seed}")
    return bool(run.failures)


if __name__ == "__main__":
    os.environ[PLAIN_START] = "1"  # its faults and its memory are those of users' processes
    sys.exit(main(sys.argv[1:]))
