"""Lock of the embedded mode's data directory: one server at a time.

The sessions are in the server's memory. A second server would accept pushes for sessions that it
does not know.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from imgo_site.deployment import data_dir
from imgo_site.errors import Unavailable


@contextmanager
def hold_data_dir() -> Iterator[None]:
    """Hold the lock of the data directory. Raises `Unavailable` if another server holds it."""
    # The kernel releases it when this process ends, even if it is killed.
    with (data_dir() / "server.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"A server runs with the data in {data_dir()} already, and knows alone who "
                "is connected to it: stop it, or set IMGO_DATA_DIR for another."
            ) from None
        yield
