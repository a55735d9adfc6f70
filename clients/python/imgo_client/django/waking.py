"""What a commit wakes: the relay's thread of this process, or a Celery task.

The thread is a daemon thread. The first commit of a process starts it, so a process that only
forks others has none, and a forked child starts its own.
"""

from __future__ import annotations

import atexit
import os
import threading

from django.core import mail

from imgo_client.django.conf import options
from imgo_client.django.running import Runner


class RelayThread:
    """The relay's thread of this process; it is started by the first `wake`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Let the thread look into the outbox now; start it unless it runs."""
        with self._lock:
            if self._runner is None or not self.is_running:
                self._runner = Runner(options().IDLE_POLL)
                self._thread = threading.Thread(
                    target=self._runner.run, name="imgo-relay", daemon=True
                )
                self._thread.start()
            else:
                self._runner.wake()

    def stop(self, seconds: float) -> None:
        """End the thread after it has tried to send what is due, or leave it after the time."""
        with self._lock:
            if self._runner is not None and self._thread is not None:
                self._runner.stop(seconds)
                self._thread.join(seconds)
                self._runner = self._thread = None


relay_thread = RelayThread()


def wake() -> None:
    """Let committed rows be sent, as the option `RELAY` says. This waits for no network of imgo's.

    Tests see no relay unless they set `RELAY_IN_TESTS`.
    """
    found = options()
    # Django's test environment gives the mail module this list.
    if hasattr(mail, "outbox") and not found.RELAY_IN_TESTS:
        return
    if found.RELAY == "thread":
        relay_thread.wake()
    elif found.RELAY == "celery":
        from imgo_client.django.tasks import relay

        relay.apply_async(retry=False)


def _forget() -> None:
    """Drop the parent's thread in a forked child. The parent may have held the old one's lock."""
    global relay_thread  # noqa: PLW0603 - one thread a process
    relay_thread = RelayThread()


def _finish() -> None:
    """Give the thread a moment for the last commits, such as those of a management command."""
    if relay_thread.is_running:
        relay_thread.stop(options().EXIT_WAIT)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_finish)
