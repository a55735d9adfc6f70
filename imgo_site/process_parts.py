"""Parts that a process has once: made on first use, closed together, left to the parent by a fork.

Celery tasks, commands and requests of a WSGI server have no object that could give them such a
part. A part that a node can have for itself does not belong here.
"""

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from imgo_site.forks import leave_to_parent, renew_after_fork

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ProcessParts:
    """Parts by the function that makes them. Any thread may call the methods."""

    def __init__(self) -> None:
        self._is_registered = False  # `close` runs at the end of the process
        self._parts: dict[Callable[[], Any], Any] = {}
        self._lock = threading.RLock()  # a part may get another part while it is made

    def get(self, make: Callable[[], T]) -> T:
        """Return the part that `make()` has made; call it at the first use."""
        part: T | None = self._parts.get(make)
        if part is None:
            with self._lock:
                part = self._parts.get(make)
                if part is None:
                    if not self._is_registered:
                        self._is_registered = True
                        atexit.register(self.close)
                    part = self._parts[make] = make()
        return part

    def close(self) -> None:
        """Call `close()` of each part that has it, the last part first; later uses make new parts.

        Errors are logged: this is the end of a process.
        """
        with self._lock:
            parts, self._parts = self._parts, {}
        for part in reversed(parts.values()):
            if close := getattr(part, "close", None):
                try:
                    close()
                except Exception:
                    logger.exception("%s could not be closed", type(part).__name__)

    def renew(self) -> None:
        """Start without parts in a forked child, which shares no lock or connection of its parent.

        The parts of the parent are kept, but never used or closed.
        """
        leave_to_parent(*self._parts.values())
        self._parts, self._lock = {}, threading.RLock()


process = ProcessParts()
renew_after_fork(process.renew)
