"""Readiness of many sockets for one event loop, at the cost of one file descriptor to it.

An epoll instance is itself readable when one of its sockets is ready. So the event loop watches
the one and the poller keeps the many: a session costs an entry in one dict, where a handle and a
transport of asyncio cost kilobytes. It works on any event loop that has `add_reader`.
"""

import asyncio
import select
from collections.abc import Callable

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
EVENTS_MAX = 256  # sockets served before the event loop gets a turn

Ready = Callable[[int], None]


class Poller:
    """Calls `ready(events)` of a socket when it can be read, written, or was closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        loop.add_reader(self._epoll.fileno(), self._run)

    def add(self, fd: int, ready: Ready, events: int = READ) -> None:
        """Watch a socket."""
        self._epoll.register(fd, events)
        self._ready[fd] = ready

    def watch(self, fd: int, events: int) -> None:
        """Watch it for these events from now on; 0 for a reset alone."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching; call it before the socket is closed."""
        del self._ready[fd]
        self._epoll.unregister(fd)

    def __len__(self) -> int:
        """How many sockets it watches."""
        return len(self._ready)

    def close(self) -> None:
        """Let go of the event loop. The sockets are their owners' to close."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._ready.clear()

    def _run(self) -> None:
        ready = self._ready
        for fd, events in self._epoll.poll(0, EVENTS_MAX):
            # An earlier one of this round may have closed it.
            if (call := ready.get(fd)) is not None:
                call(events)
