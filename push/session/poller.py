"""Readiness of many sockets for one event loop, through one epoll instance.

An epoll instance is itself readable if one of its sockets is ready. So the event loop watches
only the epoll instance, and the poller watches the sockets. A session costs one dict entry; a
handle and a transport of asyncio cost kilobytes. This works on any loop that has `add_reader`.
"""

import asyncio
import select
from collections.abc import Callable

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
EVENTS_MAX = 256  # sockets served in one turn of the event loop

Ready = Callable[[int], None]


class Poller:
    """Set of watched sockets; calls a socket's `ready(events)` if it is ready or closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        loop.add_reader(self._epoll.fileno(), self._run)

    def add(self, fd: int, ready: Ready, events: int = READ) -> None:
        """Watch a socket; `ready` is called with the epoll events."""
        self._epoll.register(fd, events)
        self._ready[fd] = ready

    def hand_over(self, fd: int, ready: Ready) -> None:
        """Call `ready` for a watched socket from now on, instead of what was called before."""
        assert fd in self._ready
        self._ready[fd] = ready

    def watch(self, fd: int, events: int) -> None:
        """Watch a socket for these events from now on; 0 for only errors and resets."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching a socket; call this before the socket is closed."""
        del self._ready[fd]
        self._epoll.unregister(fd)

    def __len__(self) -> int:
        """Return the number of watched sockets."""
        return len(self._ready)

    def close(self) -> None:
        """Remove the poller from the event loop. The owners must close the sockets."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._ready.clear()

    def _run(self) -> None:
        ready = self._ready
        for fd, events in self._epoll.poll(0, EVENTS_MAX):
            # An earlier call of this round may have removed the socket.
            if (call := ready.get(fd)) is not None:
                call(events)
