"""The table of the README, from the JSON file of a run."""

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- made by make bench-full -->", "<!-- end -->"


def number(value: float) -> str:
    """Three significant digits, or whole numbers in thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(document: dict[str, Any]) -> str:
    """One line for each thing that was measured, with date and machine."""
    machine = document["machine"]
    memory = int(machine["memory"].split()[0]) / 2**20
    cells = ["| | measured | ratio | target | reached |", "|---|---|---|---|---|"]
    for row in document["rows"]:
        value = "not measured" if row["value"] is None else f"{number(row['value'])} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} × {row['ratio_of']}"
        reached = {None: "", True: "yes", False: "**no**"}[row["reached"]]
        what = f"{row['scenario']}: {row['what']}" + (f" ({row['note']})" if row["note"] else "")
        cells.append(f"| {what} | {value} | {ratio} | {row['target']} | {reached} |")
    return (
        f"Measured on {document['date'][:10]}, in one run (`{document['set']}` set), with"
        f" {machine['cores']} cores of {machine['processor'] or 'an unnamed processor'} and"
        f" {memory:.0f} GiB for servers, Postgres, Redis and load generator together;"
        f" Python {document['python']}.\n\n" + "\n".join(cells)
    )


def write_into(page: Path, document: dict[str, Any]) -> None:
    """Replace the table between the two marks of a page. Raises ValueError without them."""
    text = page.read_text()
    before, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(f"{before}{BEGIN}\n\n{table(document)}\n\n{rest}")
