"""What the pages take from the code when the site is built.

A page names a part as `<!-- from the code: checks -->`. It is put in at each build, so it cannot
grow old.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import django
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parent.parent
CHECK = re.compile(r"([EWI]\d{3}(?:-[EWI]\d{3})?): ([^;.]+)")  # in the docstring of a check
MARK = re.compile(r"<!-- from the code: ([a-z-]+) -->")


def on_config(config: Any) -> Any:
    """Set Django up; mkdocs calls this first."""
    sys.path.insert(0, str(ROOT))  # the program `mkdocs` does not look there
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "imgo_site.settings")
    django.setup()
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the parts in. Raises `PluginError` for one that there is not."""

    def part(match: re.Match[str]) -> str:
        if match[1] not in PARTS:
            known = ", ".join(PARTS)
            raise PluginError(f"{match[0]}: there is no such part; there are {known}.")
        return str(PARTS[match[1]]())

    return MARK.sub(part, markdown)


def close_codes() -> str:
    """The table of close codes."""
    from push.wire.close_codes import CloseCode

    lines = ["| code | back-off | meaning |", "|---|---|---|"]
    for code in CloseCode:
        backoff = f"{code.backoff} s " if code.backoff else ""
        lines.append(f"| {int(code)} | {backoff}| {code.reason} |")
    return "\n".join(lines)


def checks() -> str:
    """The table of the system checks, from their docstrings: `E001: this; W001-W002: that`."""
    from django.core.checks.registry import registry

    known = {*registry.registered_checks, *registry.deployment_checks}
    texts = [check.__doc__ or "" for check in known if check.__module__.startswith("push.checks")]
    found = [match for text in texts for match in CHECK.findall(text.replace("\n", " "))]
    lines = ["| id | what it finds |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{ids}` | {what} |" for ids, what in sorted(found))])


def _measured(name: str = "benchmark.json") -> Any:
    return json.loads((ROOT / "docs" / name).read_text())


def _value(rows: list[dict[str, Any]], scenario: str, what: str) -> float:
    """One figure, by the beginning of its name. Raises `PluginError` without exactly one."""
    from benchmarks import markdown

    found = markdown.find(rows, scenario, what)
    if len(found) != 1:
        raise PluginError(f"docs/benchmark*.json: {len(found)} rows of {scenario}: {what}...")
    return float(found[0]["value"])


def figures() -> str:
    """What was measured last, target by target."""
    from benchmarks import markdown

    return markdown.table(_measured())


def summary() -> str:
    """Four of them, beside stock Channels."""
    from benchmarks import markdown

    return markdown.summary(_measured())


def million() -> str:
    """The run of its own with a million sessions."""
    rows = _measured("benchmark-million.json")["rows"]

    def value(what: str) -> float:
        return _value(rows, "million", what)

    return (
        f"{value('sessions open at once'):,.0f} sessions at once are a run of their own, with many"
        f" nodes on that one machine. The nodes took"
        f" {value('user-space memory of all nodes'):.2f} GiB, everything together with both ends"
        f" of every socket {value('memory of everything'):.1f} GiB. Sessions opened at"
        f" {value('sessions opened by the clock'):,.0f} a second; one message to all reached the"
        f" last after {value('one message to all'):.0f} s."
    )


def size_in_memory() -> str:
    """What a session takes, from the two runs."""
    rows, many = _measured()["rows"], _measured("benchmark-million.json")["rows"]
    each = (_value(rows, "memory", f"per idle session, {kind}") for kind in ("websocket", "tcp"))
    everything = _value(many, "million", "memory of everything") * 2**30
    whole = everything / _value(many, "million", "sessions open at once")
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| an idle session, in the node | {max(each) / 1000:.1f} kB |",
            "| an idle session with both ends of its socket in the kernel, and its share of"
            f" everything else on the machine | {whole / 1000:.0f} kB |",
        ]
    )


def size_in_cpu() -> str:
    """What one core can do."""
    from benchmarks.markdown import number

    rows = _measured()["rows"]
    frames = [
        1e6 / _value(rows, "fanout", f"1 message a frame, websocket, {count} sessions")
        for count in ("19,500", "1,000")
    ]
    lines = ["| a second of CPU | |", "|---|---|"]
    for text, scenario, what in (
        ("WebSockets opened, with stored tokens", "connect", "websocket, stored token"),
        ("TCP sessions opened, with stored tokens", "connect", "tcp, stored token"),
        ("stored pushes accepted, one a request", "ingest", "stored, one a request"),
        ("stored pushes accepted, in arrays", "ingest", "stored, arrays of"),
    ):
        lines.append(f"| {text} | {number(_value(rows, scenario, what))} |")
    lines.append(f"| frames sent, at 19,500 sessions | {number(frames[0])} |")
    lines.append(f"| frames sent, at 1,000 sessions | {number(frames[1])} |")
    return "\n".join(lines)


def missed() -> str:
    """The targets that the last run did not reach."""
    from benchmarks.markdown import number

    lines = []
    for row in _measured()["rows"]:
        if row["reached"] is False:
            ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} × {row['ratio_of']}"
            value = f"{number(row['value'])} {row['unit']}{ratio}"
            lines.append(
                f"- {row['scenario']}: {row['what']}: {value}. The target: {row['target']}."
            )
    return "\n".join(lines) or "All targets were reached."


PARTS = {
    "close-codes": close_codes,
    "checks": checks,
    "figures": figures,
    "summary": summary,
    "missed": missed,
    "million": million,
    "size-in-memory": size_in_memory,
    "size-in-cpu": size_in_cpu,
}
