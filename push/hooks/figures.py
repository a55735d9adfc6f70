"""Figures of the hooks: how many calls, with which outcomes, and how long the answers took."""

from collections.abc import Iterable, Mapping
from typing import TypedDict

import msgspec

ANSWERED = "answered"  # the outcome of a call with a usable answer
ABANDONED = "abandoned"  # of a call that was not made, because its client had disconnected


class HookFigures(msgspec.Struct):
    """Figures of one hook since its node started.

    `outcomes`: number of calls by outcome, as in `imgo_hook_calls_total`.
    `seconds`: of all answered calls together, with the wait for a connection.
    `is_open`: whether the hook is not called at the moment, because it kept failing.
    """

    outcomes: dict[str, int] = {}
    seconds: float = 0.0
    is_open: bool = False

    def count(self, outcome: str, seconds: float | None) -> None:
        """Count a call. `seconds`: how long an answered one took, None for others."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.seconds += seconds or 0.0

    def copy(self, *, is_open: bool) -> "HookFigures":
        """Return the present figures, with this state of the circuit."""
        return HookFigures(dict(self.outcomes), self.seconds, is_open)


class HookRow(TypedDict):
    """Sums of one hook over nodes.

    `calls`: without abandoned ones.
    `failures`: number of calls without a usable answer, by outcome.
    `mean_ms`: of the answered calls, None without any.
    `open_on`: names of the nodes whose circuit is open.
    """

    hook: str
    calls: int
    failures: dict[str, int]
    mean_ms: float | None
    open_on: list[str]


def empty_row(hook: str) -> HookRow:
    """Return the row of a hook that no node has called."""
    return HookRow(hook=hook, calls=0, failures={}, mean_ms=None, open_on=[])


def sums(nodes: Iterable[tuple[str, Mapping[str, HookFigures]]]) -> list[HookRow]:
    """Return a row for each hook, with the sums of all nodes, sorted by hook.

    `nodes`: the name of each node, and its figures by hook.
    """
    rows: dict[str, HookRow] = {}
    seconds: dict[str, float] = {}
    for node, hooks in nodes:
        for hook, figures in hooks.items():
            row = rows.setdefault(hook, empty_row(hook))
            _add(row, figures.outcomes)
            seconds[hook] = seconds.get(hook, 0.0) + figures.seconds
            if figures.is_open:
                row["open_on"].append(node)
    for hook, row in rows.items():
        answered = row["calls"] - sum(row["failures"].values())
        row["mean_ms"] = round(1000 * seconds[hook] / answered, 1) if answered else None
    return [rows[hook] for hook in sorted(rows)]


def _add(row: HookRow, outcomes: Mapping[str, int]) -> None:
    for outcome, count in outcomes.items():
        if outcome != ABANDONED:
            row["calls"] += count
        if outcome not in (ABANDONED, ANSWERED):
            row["failures"][outcome] = row["failures"].get(outcome, 0) + count
