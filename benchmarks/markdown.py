"""Tables for the pages, from the JSON file of a run: all of it, and the README's four rows."""

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- made by make bench-full -->", "<!-- end -->"

# The README's rows: what it calls them; the scenario and the name of ours; the same of stock.
SUMMARY = (
    (
        "CPU of a room message, for each of 1,000 WebSockets",
        ("fanout", "1 message a frame, websocket, 1,000 sessions"),
        ("fanout", "stock Channels, 1 message a frame, 1,000 sessions"),
    ),
    (
        "memory of an idle WebSocket session",
        ("memory", "per idle session, websocket"),
        ("memory", "stock Channels, per idle session"),
    ),
    (
        "WebSocket sessions opened in a second of CPU, authenticated here",
        ("connect", "websocket, stored token"),
        ("connect", "stock Channels, no auth"),
    ),
    (
        "stored pushes accepted in a second of CPU, streamed",
        ("ingest", "stored, streamed"),
        None,
    ),
)


def number(value: float) -> str:
    """Three significant digits, or whole numbers in thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(document: dict[str, Any]) -> str:
    """One line for each thing that was measured, with date and machine."""
    cells = ["| | measured | ratio | target | reached |", "|---|---|---|---|---|"]
    for row in document["rows"]:
        value = "not measured" if row["value"] is None else f"{number(row['value'])} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['ratio_of']}"
        reached = {None: "", True: "yes", False: "**no**"}[row["reached"]]
        if row.get("disturbed"):  # absent in files of earlier versions
            reached = f"disturbed by others ({row['others']:.0%} of the cores)"
        what = f"{row['scenario']}: {row['what']}" + (f" ({row['note']})" if row["note"] else "")
        cells.append(f"| {what} | {value} | {ratio} | {row['target']} | {reached} |")
    return f"{_circumstances(document)}\n\n" + "\n".join(cells)


def summary(document: dict[str, Any]) -> str:
    """Return the README's four rows, with date and machine."""
    cells = ["| one process on one core | imgo | stock Channels |", "|---|---|---|"]
    for name, ours, stock in SUMMARY:
        cells.append(f"| {name} | {_value(document, ours)} | {_value(document, stock)} |")
    return "\n".join([*cells, "", _circumstances(document)])


def _circumstances(document: dict[str, Any]) -> str:
    machine = document["machine"]
    memory = int(machine["memory"].split()[0]) / 2**20
    return (
        f"Measured on {document['date'][:10]}, in one run (`{document['set']}` set), with"
        f" {machine['cores']} cores of {machine['processor'] or 'an unnamed processor'} and"
        f" {memory:.0f} GiB for servers, Postgres, Redis and load generator together;"
        f" Python {document['python']}."
    )


def find(rows: list[dict[str, Any]], scenario: str, beginning: str) -> list[dict[str, Any]]:
    """Return the rows of a scenario whose `what` begins so."""
    return [
        row for row in rows if row["scenario"] == scenario and row["what"].startswith(beginning)
    ]


def _value(document: dict[str, Any], row_name: tuple[str, str] | None) -> str:
    """Return the value of a row, by scenario and beginning, with its unit; "" for None."""
    if row_name is None:
        return ""
    for row in find(document["rows"], *row_name):
        if row["value"] is not None:
            return f"{number(row['value'])} {row['unit'].split('/')[0]}"
    return "not measured"


def write_into(page: Path, document: dict[str, Any]) -> None:
    """Replace the summary between the two marks of a page. Raises ValueError without them."""
    text = page.read_text()
    before, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(f"{before}{BEGIN}\n\n{summary(document)}\n\n{rest}")
