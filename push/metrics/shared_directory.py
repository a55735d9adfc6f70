"""The directory into which the processes of one supervisor write their metrics.

The process that is scraped, a child or the supervisor, reports the metrics of all.
"""

import shutil
import tempfile

from prometheus_client.multiprocess import mark_process_dead


class SharedMetrics:
    """A directory of metrics that exists until `remove`.

    Raises OSError if the directory cannot be created.
    """

    def __init__(self, name: str) -> None:
        self.path = tempfile.mkdtemp(prefix=f"imgo-{name}-")

    def environment(self) -> dict[str, str]:
        """Return the variables that a process needs in its environment when it starts."""
        return {"PROMETHEUS_MULTIPROC_DIR": self.path}

    def ended(self, pid: int) -> None:
        """Record that a process has ended: its counters stay in the sums, its gauges do not."""
        mark_process_dead(pid, self.path)  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove the directory, after its processes have ended."""
        shutil.rmtree(self.path, ignore_errors=True)
