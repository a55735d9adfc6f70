"""What a run of the benchmarks says of figures that other programs have disturbed."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from benchmarks import proc, report
from benchmarks.bench import DISTURBED, Row, Target

LIMIT = Target(10, "ms")


def row(value: float, others: float) -> Row:
    return Row("latency", "p99", value, "ms", target=LIMIT, others=others)


@pytest.mark.parametrize("value", [5.0, 50.0])
def test_disturbed_figure_is_marked_and_is_no_verdict(value):
    disturbed = row(value, 2 * DISTURBED)
    assert disturbed.reached is None
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(report.table([disturbed]))
    text = console.export_text()
    assert f"disturbed: {2 * DISTURBED:.0%}" in text
    assert "yes" not in text
    assert "no " not in text
    (_, remark) = report.remarks({}, [disturbed, row(5.0, 0.0)])
    assert "1 of 2 figures" in remark


def test_figure_of_a_quiet_machine_has_a_verdict():
    assert (row(5.0, 0.0).reached, row(50.0, 0.0).reached) == (True, False)


def test_programs_that_were_started_here_are_not_others(monkeypatch):
    machine = [(0.0, 0.0), (10.0, 0.4)]  # seconds, CPU seconds of all programs
    own = proc.tree_cpu(proc.os.getpid())
    monkeypatch.setattr(proc.os, "cpu_count", lambda: 2)

    def read() -> tuple[float, float, float]:
        at, busy = machine.pop(0)
        return at, busy, proc.tree_cpu(proc.os.getpid()) - own

    monkeypatch.setattr(proc.OtherPrograms, "_read", staticmethod(read))
    others = proc.OtherPrograms()
    spin = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert others.share() == 0.0
