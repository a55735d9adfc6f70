"""The picture for docs/: CPU per frame × floor, and memory per session, beside the anchors."""

from pathlib import Path
from typing import Any

from benchmarks.bench import Bench

# From the project's table of anchors: the same machine and load, measured before. (low, high).
CPU_ANCHORS = {
    "uWebSockets (C++)": (1.10, 1.10),
    "nchan (C)": (1.23, 1.23),
    "goim comet v2 (Go)": (1.75, 2.0),
}
MEMORY_ANCHORS = {  # KB
    "uWebSockets (C++)": (0.65, 0.65),
    "nchan (C)": (10.0, 10.0),
    "Centrifugo, as published": (11.0, 27.0),
    "goim comet v2 (Go)": (45.0, 45.0),
}
HERE, BASELINE, ANCHOR = "#1668a7", "#c2571a", "#b5b9bf"

Bar = tuple[str, float, float, str]  # label, low, high, colour


def draw(path: Path, bench: Bench, date: str) -> None:
    """Write the picture as a PNG. What was not measured in this run is not in it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.2), dpi=120)
    _panel(left, "CPU per delivered frame, × the send floor", "×", _cpu(bench))
    _panel(right, "User-space memory per idle session, KB", "KB", _memory(bench))
    figure.text(
        0.01,
        0.01,
        f"Blue and orange: measured in one run, {date[:10]}. Grey: other servers, measured before "
        "under the same load, or as published. Logarithmic scale; less is better.",
        fontsize=8,
        color="#555555",
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def _cpu(bench: Bench) -> list[Bar]:
    bars = [
        (f"imgo, {transport}, {sessions:,} sessions", ratio, ratio, HERE)
        for (transport, sessions), single in bench.known.get("fanout", {}).items()
        if (ratio := single.ratio)
    ]
    bars += [(name, low, high, ANCHOR) for name, (low, high) in CPU_ANCHORS.items()]
    stock = [row for row in bench.rows if row.scenario == "fanout" and "stock" in row.what]
    bars += [
        ("stock Channels, Redis, Daphne", r.ratio, r.ratio, BASELINE) for r in stock if r.ratio
    ]
    return bars


def _memory(bench: Bench) -> list[Bar]:
    bars = []
    for row in bench.rows:
        if row.scenario == "memory" and row.value:
            kilobytes, is_stock = row.value / 1000, "stock" in row.what
            name = "stock Channels, Redis, Daphne" if is_stock else f"imgo, {_transport(row.what)}"
            bars.append((name, kilobytes, kilobytes, BASELINE if is_stock else HERE))
    bars += [(name, low, high, ANCHOR) for name, (low, high) in MEMORY_ANCHORS.items()]
    return bars


def _transport(what: str) -> str:
    return "websocket" if "websocket" in what else "tcp"


def _panel(axes: Any, title: str, unit: str, bars: list[Bar]) -> None:
    bars = sorted(bars, key=lambda bar: bar[2], reverse=True)
    lowest = min((bar[1] for bar in bars), default=1.0) * 0.7  # a logarithmic axis has no zero
    for place, (_, low, high, colour) in enumerate(bars):
        axes.hlines(place, lowest, low, color="#dddddd", linewidth=1)
        axes.hlines(place, low, high, color=colour, linewidth=3)
        axes.plot([low, high], [place, place], "o", color=colour, markersize=7)
        text = f"{high:.3g}" if low == high else f"{low:.3g}-{high:.3g}"
        axes.text(high * 1.12, place, f"{text} {unit}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [bar[0] for bar in bars], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(lowest, max((bar[2] for bar in bars), default=10.0) * 2.2)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=8)
