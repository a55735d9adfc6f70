"""What /proc says of a process and of all that it started: CPU time and memory."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # units of CPU time in /proc/PID/stat, a second
CPUCLOCK_SCHED = 2  # <linux/posix-timers.h>: with ~pid above it, a process's clock for another


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """The process and its descendants, parents first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += parents.get(parent, [])
    return found


def cpu(pid: int) -> float:
    """CPU seconds, user and system, of a process: all its threads, its ended children too.

    The kernel's clock of the process: what utime + stime of /proc/PID/stat say, which come in
    hundredths of a second, to the nanosecond. 0 when the process is gone.
    """
    fields = _stat(pid)
    try:
        own = time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
    except OSError:
        return 0.0
    return own + sum(map(int, fields[13:15])) / TICKS


def tree_cpu(pid: int) -> float:
    """CPU seconds of a process and all its descendants."""
    return sum(map(cpu, tree(pid)))


def memory(pid: int) -> dict[str, int]:
    """Bytes of user-space memory of one process: `rss`, `pss`, and `private`."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kilobytes, *_ = line.split()
        sizes[name] = int(kilobytes) * 1024
    return {
        "rss": sizes["Rss:"],
        "pss": sizes["Pss:"],
        "private": sizes["Private_Clean:"] + sizes["Private_Dirty:"],
    }
