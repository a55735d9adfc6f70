"""What a run found, for people and for programs: a table and a JSON file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bench import STARVED, Row
from benchmarks.markdown import number

PLAIN_WIDTH = 150  # columns of a table that goes into a file or a pipe


def console() -> Console:
    """Where everything is printed."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def table(rows: list[Row]) -> Table:
    """One line for each thing that was measured."""
    found = Table(title="imgo benchmarks", title_justify="left", expand=True)
    for name in ("scenario", "what was measured", "value", "ratio", "target", "reached"):
        found.add_column(name, justify="right" if name in {"value", "ratio"} else "left")
    last = ""
    for row in rows:
        if last and row.scenario != last:
            found.add_section()
        found.add_row(row.scenario if row.scenario != last else "", *_cells(row))
        last = row.scenario
    return found


def _cells(row: Row) -> list[str]:
    what = f"{row.what}\n[dim]{row.note}[/dim]" if row.note else row.what
    target = str(row.target) if row.target else ""
    if row.value is None:
        return [what, "[yellow]not measured[/yellow]", "", target, ""]
    ratio = f"{row.ratio:.2f} × {row.ratio_of}" if row.ratio is not None else ""
    reached = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[row.reached]
    if row.is_disturbed:
        reached = f"[yellow]disturbed: {row.others:.0%}[/yellow]"
    return [what, f"{number(row.value)} {row.unit}", ratio, target, reached]


def remarks(generators: dict[str, float], rows: list[Row]) -> list[str]:
    """What to know about the table."""
    lines = ["CPU s: seconds of the server process's CPU. Floor, stock and server: in this run."]
    if disturbed := [row for row in rows if row.is_disturbed]:
        most = max(row.others for row in disturbed)
        lines.append(
            f"Other programs used up to {most:.0%} of the machine: {len(disturbed)} of {len(rows)} "
            "figures are marked as disturbed, and are no verdicts."
        )
    if generators:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in generators.items())
        lines.append(f"The busiest load generator process used, of one core: {shares}.")
    starved = [name for name, share in generators.items() if share > STARVED]
    if starved:
        lines.append(f"The generator may have been the bottleneck in: {', '.join(starved)}.")
    return lines


def as_json(
    path: Path, rows: list[Row], facts: dict[str, Any], generators: dict[str, float]
) -> None:
    """Everything that was measured."""
    document = facts | {
        "generator_share_of_a_core": generators,
        "rows": [
            asdict(row)
            | {
                "target": str(row.target) if row.target else "",
                "reached": row.reached,
                "disturbed": row.is_disturbed,
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")
