"""A series of runs: one line for each seed, and a failure of one is one of all."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from . import __main__ as module


@pytest.mark.parametrize("bad", [8, 0])
def test_series_says_one_line_a_seed_and_fails_with_any(monkeypatch, tmp_path: Path, capsys, bad):
    commands = []

    def run(command: list[str], stdout, check: bool) -> SimpleNamespace:
        commands.append(command)
        seed = int(command[command.index("--seed") + 1])
        stdout.write(f"much\n{'failed' if seed == bad else 'passed'} after 1 s\n")
        return SimpleNamespace(returncode=int(seed == bad))

    monkeypatch.setattr(subprocess, "run", run)
    words = ["--seed", "7", "--seeds", "3", "--faults", "20", "--home", str(tmp_path)]
    assert module.main(words) == (1 if bad else 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines[:3]] == [
        f"seed {seed}: {'failed' if seed == bad else 'passed'} after 1 s" for seed in (7, 8, 9)
    ]
    assert lines[3] == f"{2 if bad else 3} of 3 passed"
    assert all(command[:3] == [sys.executable, "-m", "tests.chaos"] for command in commands)
    assert all(command[command.index("--faults") + 1] == "20" for command in commands)
