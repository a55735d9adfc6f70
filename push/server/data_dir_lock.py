"""The data directory of the embedded mode: one server at a time.

A second one would take pushes for sessions that it does not see: who is connected is in the memory
of the first.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from imgo_site.deployment import data_dir
from imgo_site.errors import Unavailable


@contextmanager
def hold_data_dir() -> Iterator[None]:
    """Hold the data directory. Raises `Unavailable` when another server does."""
    # The kernel lets go of it when this process ends, however that happens.
    with (data_dir() / "server.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"A server runs with the data in {data_dir()} already, and knows alone who "
                "is connected to it: stop it, or set IMGO_DATA_DIR for another."
            ) from None
        yield
