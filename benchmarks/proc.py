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


class OtherPrograms:
    """How much of the machine programs have used that this process has not started."""

    def __init__(self) -> None:
        self._before = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """(monotonic time, CPU seconds of all programs, CPU seconds of our own)."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system = (int(field) / TICKS for field in fields[:3])
        return time.monotonic(), user + nice + system, tree_cpu(os.getpid())

    @property
    def seconds(self) -> float:
        """Return the time since the last call of `share`."""
        return time.monotonic() - self._before[0]

    def share(self) -> float:
        """Return their share of all cores since the last call, 0 to 1."""
        before, self._before = self._before, self._read()
        seconds, busy, own = (
            after - start for after, start in zip(self._before, before, strict=True)
        )
        available = seconds * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (busy - own) / available)) if available else 0.0
