"""`python -m benchmarks`: run the scenarios, print one table, write JSON and a plot."""

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed

from benchmarks import (
    connect,
    devices,
    fanout,
    growth,
    ingest,
    latency,
    markdown,
    memory,
    million,
    online,
    outbox,
    presence,
    replay,
    report,
    schedule,
    scopes,
    streams,
    sustained,
)
from benchmarks.bench import Bench
from benchmarks.machine import facts
from benchmarks.servers import Stack

SCENARIOS: dict[str, Callable[[Bench], None]] = {
    "fanout": fanout.run,
    "memory": memory.run,
    "connect": connect.run,
    "latency": latency.run,
    "ingest": ingest.run,
    "replay": replay.run,
    "streams": streams.run,
    "presence": presence.run,
    "online": online.run,
    "outbox": outbox.run,
    "devices": devices.run,
    "schedule": schedule.run,
    "sustained": sustained.run,
    "scopes": scopes.run,
    "growth": growth.run,
    "million": million.run,
}
ASKED_FOR = {"million"}  # not in the sets


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the large set; takes a while")
    parser.add_argument(
        "--only",
        action="append",
        choices=SCENARIOS,
        metavar="NAME",
        help=f"one of {', '.join(SCENARIOS)}; may be given more than once",
    )
    parser.add_argument("--json", type=Path, default=Path("var/benchmark.json"))
    parser.add_argument("--plot", type=Path, help="a PNG file")
    parser.add_argument("--page", type=Path, help="a Markdown file whose table is to be replaced")
    return parser.parse_args()


def main() -> int:
    """0 when everything could be measured, 1 when not, 130 after Ctrl-C."""
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    console = report.console()
    chosen = [name for name in SCENARIOS if name in (options.only or SCENARIOS.keys() - ASKED_FOR)]
    status = 0
    try:
        with _progress(console, len(chosen)) as (say, advance):
            say("starting Postgres and Redis")
            with Stack() as stack:
                bench = Bench(stack, say, full=options.full)
                known = facts(stack) | {"set": "full" if options.full else "short"}
                try:
                    for name in chosen:
                        status |= _run(bench, name)
                        advance()
                except KeyboardInterrupt:
                    status = 130
    except KeyboardInterrupt:
        return 130
    console.print(report.table(bench.rows))
    for line in report.remarks(bench.generators, bench.rows):
        console.print(line)
    if status == 130:
        console.print("Interrupted: no file was written.")
    else:
        _write(console, options, bench, known)
    return status


def _run(bench: Bench, name: str) -> int:
    """Run one scenario; what it could not do becomes a row."""
    bench.begin(name)
    try:
        SCENARIOS[name](bench)
    except Exception as error:  # noqa: BLE001 - the others still have their turn
        details = {"traceback": traceback.format_exc()}
        bench.row("could not run to its end", None, note=str(error)[:500], details=details)
    return int(any(row.value is None for row in bench.rows if row.scenario == name))


def _write(console: Console, options: Any, bench: Bench, known: dict[str, Any]) -> None:
    report.as_json(options.json, bench.rows, known, bench.generators)
    console.print(f"Everything measured, and on what: {options.json}")
    if options.page:
        markdown.write_into(options.page, json.loads(options.json.read_text()))
        console.print(f"Table: {options.page}")
    if options.plot:
        from benchmarks.plot import draw

        draw(options.plot, bench, known["date"])
        console.print(f"Plot: {options.plot}")


class _progress:  # noqa: N801 - reads as a statement
    """A line that moves on a terminal; elsewhere one line a step."""

    def __init__(self, console: Console, scenarios: int) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            Elapsed(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=scenarios)

    def __enter__(self) -> tuple[Callable[[str], None], Callable[[], None]]:
        self._bar.start()
        return self._say, lambda: self._bar.advance(self._task)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _say(self, text: str) -> None:
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal:
            self._console.print(text)


if __name__ == "__main__":
    sys.exit(main())
