"""A directory in which the processes of one supervisor count together.

Whoever is asked, one of them or the supervisor, answers for all.
"""

import shutil
import tempfile

from prometheus_client.multiprocess import mark_process_dead


class SharedMetrics:
    """The directory, from its making to `remove`. Raises OSError when it cannot be made."""

    def __init__(self, name: str) -> None:
        self.path = tempfile.mkdtemp(prefix=f"imgo-{name}-")

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment from the start."""
        return {"PROMETHEUS_MULTIPROC_DIR": self.path}

    def ended(self, pid: int) -> None:
        """A process is no more: what it has counted still counts."""
        mark_process_dead(pid, self.path)  # type: ignore[no-untyped-call]

    def remove(self) -> None:
        """Remove the directory: nobody counts any more."""
        shutil.rmtree(self.path, ignore_errors=True)
